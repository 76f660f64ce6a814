#!/bin/sh
# Makes random passwords in a folder of your choice, once; never overwrites one.
#   ./make-secrets.sh /etc/pacsnode/secrets && export PACSNODE_SECRETS=/etc/pacsnode/secrets
set -eu
folder=${1:?"which folder? e.g. ./make-secrets.sh /etc/pacsnode/secrets"}
if [ -e "$folder/database_url" ]; then
  echo "$folder has secrets already; a new password would lock the database out" >&2
  exit 1
fi
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
mkdir -p "$folder"
chmod 700 "$folder" # the folder keeps others out; the files are readable to the containers' users
umask 022
postgres=$(random)
redis=$(random)
printf '%s' "$postgres" >"$folder/postgres_password"
printf '%s' "$redis" >"$folder/redis_password"
printf 'redis://:%s@redis:6379/0' "$redis" >"$folder/redis_url"
printf 'postgresql+psycopg://pacsnode:%s@postgres:5432/pacsnode' "$postgres" >"$folder/database_url"
echo "secrets are in $folder"
