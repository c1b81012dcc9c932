"""`k8s/rollout.sh` applies an overlay in the order that keeps the service up. A stand-in for kubectl writes down what
it is asked to do to a cluster; manifests are rendered by the real one."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from k8s_manifests import K8S, KUBECTL, needs_kubectl

pytestmark = needs_kubectl

STAND_IN = f"""#!/bin/sh
[ "$1" = kustomize ] && exec {KUBECTL} "$@"
echo "$*" | sed 's,-f /[^ ]*,-f FILE,' >> "$CALLS"
case "$*" in *"get job "*) for job; do
    case "$job" in
        "$FAILING") echo "FailureTarget Failed" ;;
        waystation-migrate-*) echo "SuccessCriteriaMet Complete" ;;
    esac
done ;; esac
"""


def rolled_out(tmp_path: Path, overlay: str, *options: str, failing: str = "", dry: str = "") -> tuple[int, list[str]]:
    """Exit code, and what kubectl was asked for but rendering."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(STAND_IN)
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    calls = tmp_path / "calls"
    calls.touch()
    done = subprocess.run(
        ["sh", str(K8S / "rollout.sh"), str(K8S / "overlays" / overlay), *options],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "FAILING": failing,
            "DRY_RUN": dry,
            "POLL_S": "1",
            "TIMEOUT_S": "5",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, calls.read_text().splitlines()


COMPONENT = "app.kubernetes.io/component"


def test_migrations_come_before_and_after_the_processes(tmp_path: Path) -> None:
    code, calls = rolled_out(tmp_path, "production")
    state = '-o jsonpath={.status.conditions[?(@.status=="True")].type}'
    assert code == 0
    assert calls == [
        f"apply -f FILE -l {COMPONENT} in (config,postgres,redis)",
        "-n waystation delete job waystation-migrate-pre --ignore-not-found --wait",
        f"apply -f FILE -l {COMPONENT}=migrate-pre",
        f"-n waystation get job waystation-migrate-pre {state}",
        f"apply -f FILE -l {COMPONENT} notin (migrate-pre,migrate-post)",
        "-n waystation rollout status deployment/waystation-api --timeout=5s",
        "-n waystation rollout status deployment/waystation-worker --timeout=5s",
        "-n waystation delete job waystation-migrate-post --ignore-not-found --wait",
        f"apply -f FILE -l {COMPONENT}=migrate-post",
        f"-n waystation get job waystation-migrate-post {state}",
    ]


def test_processes_stay_as_they_are_when_a_migration_fails(tmp_path: Path) -> None:
    code, calls = rolled_out(tmp_path, "production", failing="waystation-migrate-pre")
    assert code == 1
    assert calls[-1] == "-n waystation logs job/waystation-migrate-pre --tail=50"
    assert not any("notin" in call for call in calls)


def test_a_canary_runs_no_post_migrations(tmp_path: Path) -> None:
    code, calls = rolled_out(tmp_path, "canary")
    assert code == 0
    assert calls[-1] == "-n waystation rollout status deployment/waystation-worker-canary --timeout=5s"
    assert not any("migrate-post --" in call or call.endswith("migrate-post") for call in calls)


@pytest.mark.parametrize("site", ["primary", "standby"])
def test_options_go_to_every_call(tmp_path: Path, site: str) -> None:
    code, calls = rolled_out(tmp_path, f"multi-region/{site}", "--context", "us")
    assert code == 0
    assert all(call.startswith("--context us ") for call in calls)
    assert all("-n waystation-eu" in call for call in calls if " apply " not in call)
    # A database that follows takes no migrations.
    assert any("migrate" in call and "notin" not in call for call in calls) == (site == "primary")


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    code, calls = rolled_out(tmp_path, "production", dry="1")
    assert code == 0
    assert len(calls) == 4
    assert all(call.startswith("apply") and call.endswith("--dry-run=server") for call in calls)
