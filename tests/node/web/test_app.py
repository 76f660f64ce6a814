from __future__ import annotations

import subprocess
import sys


def test_the_front_page_says_what_this_is_and_where_to_look(site) -> None:
    page = site.client.get("/")
    assert page.status_code == 200
    assert "not a medical device" in page.text
    assert "&lt;CHEST&gt;" in page.text
    for path in ("/healthz", "/readyz", "/workz", "/metrics"):
        assert f'href="{path}"' in page.text
    for path in ("/healthz", "/readyz", "/metrics"):
        assert site.client.get(path).status_code == 200


def test_health_asks_nothing_else(site) -> None:
    site.broker_is_away.append(True)
    site.receiver.close()
    site.database.close()
    assert site.client.get("/healthz").json()["status"] == "ok"


def test_there_is_no_other_page(site) -> None:
    for path in ("/docs", "/openapi.json", "/studies"):
        assert site.client.get(path).status_code == 404


def test_the_web_process_knows_neither_networks_nor_dicom() -> None:
    heavy = ("torch", "pydicom", "celery")
    program = f"import sys, node.web.app, node.web.serve; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
