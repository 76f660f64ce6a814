"""The only room that speaks SQL: rows, the states they may take, and every statement."""
