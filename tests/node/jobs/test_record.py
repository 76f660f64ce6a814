"""Who acts, and whether that process is still there."""

import os
import socket
import subprocess
import sys
import threading

from node.jobs.record import is_dead, process_name


def test_this_process_lives() -> None:
    assert process_name("infer").startswith(f"infer@{socket.gethostname()}:{os.getpid()}.")
    assert not is_dead(process_name("infer"))


def test_a_process_that_ended_is_dead() -> None:
    code = "from node.jobs.record import process_name; print(process_name('infer'))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_dead(ended.stdout.strip())


def test_another_process_under_the_same_id_is_not_the_one_that_died() -> None:
    name, _, began = process_name("infer").rpartition(".")
    assert is_dead(f"{name}.{int(began) - 1}")


def test_a_thread_is_no_process() -> None:
    """/proc answers for the ids of threads too."""
    ids: list[int] = []
    asked, done = threading.Event(), threading.Event()

    def live() -> None:
        ids.append(threading.get_native_id())
        asked.set()
        done.wait(10)

    thread = threading.Thread(target=live)
    thread.start()
    asked.wait(10)
    began = process_name("infer").rpartition(".")[2]
    assert is_dead(f"infer@{socket.gethostname()}:{ids[0]}.{int(began) - 5}")
    done.set()
    thread.join()


def test_of_other_hosts_nothing_is_known() -> None:
    assert not is_dead("infer@elsewhere:1.1")
    assert not is_dead("")
