"""`k8s/rollout.sh` applies an overlay in the order that keeps the service up. A stand-in for kubectl writes down what
it is asked to do to a cluster; manifests are rendered by the real one."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from k8s_manifests import K8S, KUBECTL, needs_kubectl, write_variant

pytestmark = needs_kubectl

STAND_IN = f"""#!/bin/sh
[ "$1" = kustomize ] && exec {KUBECTL} "$@"
echo "$*" | sed 's,-f /.* -l,-f FILE -l,' >> "$CALLS"
answer() {{ # the next line of that file, its last one again and again; "!" is a server that does not answer
    [ -f "$ANSWERS/$1" ] || return 0
    line=$(head -n 1 "$ANSWERS/$1")
    [ "$(wc -l < "$ANSWERS/$1")" -le 1 ] || sed -i 1d "$ANSWERS/$1"
    [ "$line" != "!" ] || exit 1
    echo "$line"
}}
case " $* " in
    *" -f - "*) grep -o '^  name: waystation-migrate.*' >> "$CALLS" ;;
    *" get job "*) answer job ;;
    *" get pods "*) answer pods ;;
    *" get rollout "*) answer rollout ;;
    *" get deployment "*) echo 7 ;;
    *" rollout status "*) [ -z "${{SIGNAL:-}}" ] || kill "-$SIGNAL" "$PPID" ;;
esac
"""
COMPLETE = ("SuccessCriteriaMet Complete",)
FAILED = ("FailureTarget Failed",)


@dataclass(frozen=True, slots=True)
class Done:
    """How the script ended and what kubectl was asked for but rendering."""

    code: int
    calls: Sequence[str]
    told: str


def rolled_out(
    tmp_path: Path,
    overlay: str | Path,
    *options: str,
    answers: Mapping[str, Sequence[str]] = {},
    environ: Mapping[str, str] = {},
) -> Done:
    """`answers`: what the server says, one after the other, by kind. Jobs are complete at once without."""
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(STAND_IN)
    (kubectl.parent / "sleep").write_text("#!/bin/sh\n")
    for program in kubectl.parent.iterdir():
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "left behind").mkdir()
    for kind, lines in {"job": COMPLETE, **answers}.items():
        (tmp_path / kind).write_text("".join(f"{line}\n" for line in lines))
    calls = tmp_path / "calls"
    calls.touch()
    done = subprocess.run(
        ["sh", str(K8S / "rollout.sh"), str(K8S / "overlays" / overlay), *options],
        env={
            **os.environ,
            "PATH": f"{kubectl.parent}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "ANSWERS": str(tmp_path),
            "TMPDIR": str(tmp_path / "left behind"),
            "POLL_S": "1",
            "TIMEOUT_S": "5",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Secrets may stand in what was rendered.
    assert not list((tmp_path / "left behind").iterdir())
    return Done(done.returncode, calls.read_text().splitlines(), done.stderr)


COMPONENT = "app.kubernetes.io/component"
POST = f"apply -f FILE -l {COMPONENT}=migrate-post"


def test_migrations_come_before_and_after_the_processes(tmp_path: Path) -> None:
    done = rolled_out(tmp_path, "production")
    state = '-o jsonpath={.status.conditions[?(@.status=="True")].type}'
    leaving = "{{range .items}}{{if .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}"
    assert done.code == 0
    assert done.calls == [
        f"apply -f FILE -l {COMPONENT} in (config,postgres,redis)",
        "-n waystation delete job waystation-migrate-pre --ignore-not-found --wait",
        f"apply -f FILE -l {COMPONENT}=migrate-pre",
        f"-n waystation get job waystation-migrate-pre {state}",
        f"apply -f FILE -l {COMPONENT} notin (migrate-pre,migrate-post)",
        "-n waystation rollout status deployment/waystation-api --timeout=5s",
        "-n waystation rollout status deployment/waystation-worker --timeout=5s",
        "-n waystation get pods -l app.kubernetes.io/name=waystation,"
        f"{COMPONENT} in (api,worker) -o go-template={leaving}",
        "-n waystation delete job waystation-migrate-post --ignore-not-found --wait",
        POST,
        f"-n waystation get job waystation-migrate-post {state}",
    ]


def test_processes_stay_as_they_are_when_a_migration_fails(tmp_path: Path) -> None:
    done = rolled_out(tmp_path, "production", answers={"job": FAILED})
    assert done.code == 1
    assert done.calls[-1] == "-n waystation logs job/waystation-migrate-pre --tail=50"
    assert not any("notin" in call for call in done.calls)


def test_a_migration_that_does_not_begin_is_given_up_with_what_its_pod_says(tmp_path: Path) -> None:
    done = rolled_out(tmp_path, "production", answers={"job": [""]}, environ={"TIMEOUT_S": "1"})
    assert done.code == 1
    assert done.calls[-1] == "-n waystation describe pods -l job-name=waystation-migrate-pre"
    assert "waystation-migrate-pre did not end within 1 s" in done.told


def test_a_server_that_does_not_answer_for_a_moment_ends_no_rollout(tmp_path: Path) -> None:
    done = rolled_out(tmp_path, "production", answers={"job": ["!", "", *COMPLETE]})
    assert done.code == 0
    assert POST in done.calls


def test_the_last_migrations_wait_for_processes_that_still_finish_their_runs(tmp_path: Path) -> None:
    """A pod that was told to go is none of the Deployment's any more, and executes runs for minutes."""
    left = ["worker-old-1 worker-old-2 ", "!", "worker-old-2 ", "worker-new-1 "]
    done = rolled_out(tmp_path, "production", answers={"pods": left})
    assert done.code == 0
    asked = [call for call in done.calls if " get pods " in call]
    assert len(asked) == len(left)
    assert done.calls.index(POST) > done.calls.index(asked[-1])


def test_the_last_migrations_are_not_run_while_an_old_process_stays(tmp_path: Path) -> None:
    done = rolled_out(tmp_path, "production", answers={"pods": ["worker-old-1 "]}, environ={"TIMEOUT_S": "1"})
    assert done.code == 1
    assert "worker-old-1 did not go" in done.told
    assert POST not in done.calls


def test_a_rollout_that_is_healthy_still_is_not_the_new_version(tmp_path: Path) -> None:
    """The Deployment is its template: until it has seen generation 7 of it, its state is that of the version before.
    It is healthy while the old pods are kept for a while."""
    write_variant(tmp_path, "rollouts")
    states = [
        "6|2|2|3|3|Healthy",
        "",
        "7|2|2|3|1|Paused",
        "7|3|2|3|3|Healthy",
        "8|3|3|6|3|Healthy",
        "8|3|3|3|3|Healthy",
    ]
    done = rolled_out(tmp_path, tmp_path, answers={"rollout": states}, environ={"TIMEOUT_S": "9"})
    assert done.code == 0
    asked = [n for n, call in enumerate(done.calls) if " get rollout waystation-api " in call]
    assert len(asked) == len(states)
    assert done.calls.index(POST) > asked[-1]
    assert not any("rollout status deployment/waystation-api" in call for call in done.calls)


def test_a_canary_that_went_back_ends_the_rollout_before_the_last_migrations(tmp_path: Path) -> None:
    write_variant(tmp_path, "rollouts")
    done = rolled_out(tmp_path, tmp_path, answers={"rollout": ["7|2|2|3|1|Degraded"]})
    assert done.code == 1
    assert "describe rollout waystation-api" in done.told
    assert POST not in done.calls


def test_a_canary_runs_no_post_migrations(tmp_path: Path) -> None:
    done = rolled_out(tmp_path, "canary")
    assert done.code == 0
    assert done.calls[-1] == "-n waystation rollout status deployment/waystation-worker-canary --timeout=5s"
    assert not any("migrate-post --" in call or call.endswith("migrate-post") for call in done.calls)


@pytest.mark.parametrize("site", ["primary", "standby"])
def test_options_go_to_every_call(tmp_path: Path, site: str) -> None:
    done = rolled_out(tmp_path, f"multi-region/{site}", "--context", "us")
    assert done.code == 0
    assert all(call.startswith("--context us ") for call in done.calls)
    assert all("-n waystation-eu" in call for call in done.calls if " apply " not in call)
    # A database that follows takes no migrations.
    assert any("migrate" in call and "notin" not in call for call in done.calls) == (site == "primary")


def test_a_dry_run_changes_nothing_and_minds_no_job_of_the_rollout_before(tmp_path: Path) -> None:
    """A Job that is there cannot be changed to another image: the server would refuse what the rollout replaces."""
    done = rolled_out(tmp_path, "production", environ={"DRY_RUN": "1"})
    assert done.code == 0
    applied = [call for call in done.calls if call.startswith("apply")]
    assert len(applied) == 4
    assert all(call.endswith("--dry-run=server") for call in applied)
    others = [call for call in done.calls if call not in applied]
    for phase in ("pre", "post"):
        assert f"  name: waystation-migrate-{phase}-check" in others
    assert all(call.startswith("  name: ") for call in others)


def test_an_overlay_may_lie_where_a_path_has_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "my overlays"
    folder.mkdir()
    write_variant(folder, "keda-plain")
    assert rolled_out(tmp_path, folder).code == 0


def test_an_overlay_may_leave_the_namespace_to_somebody_else(tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    folder.mkdir()
    write_variant(folder, "keda-plain")
    given = (folder / "kustomization.yaml").read_text().replace("namespace: waystation", "namespace: team-a")
    without = "patches:\n- target: {kind: Namespace}\n"
    without += "  patch: '{$patch: delete, kind: Namespace, metadata: {name: x}}'\n"
    (folder / "kustomization.yaml").write_text(given + without)
    done = rolled_out(tmp_path, folder)
    assert done.code == 0
    assert "-n team-a rollout status deployment/waystation-api --timeout=5s" in done.calls


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_an_interrupted_rollout_stops_and_leaves_no_manifests_behind(tmp_path: Path, signal: str) -> None:
    done = rolled_out(tmp_path, "dev", environ={"SIGNAL": signal})
    assert done.code == {"TERM": 143, "INT": 130, "HUP": 129}[signal]
    assert POST not in done.calls


def test_what_cannot_be_rolled_out_is_said_before_anything_is_asked_of_the_cluster(tmp_path: Path) -> None:
    for arguments in ([], ["--context", "x", str(K8S / "overlays/dev")], ["--help"]):
        done = subprocess.run(
            ["sh", str(K8S / "rollout.sh"), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr.startswith("usage: k8s/rollout.sh <overlay>")) == (2, True)
    assert (missing := rolled_out(tmp_path, "nowhere")).code != 0
    assert not missing.calls


def test_an_overlay_of_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("configMapGenerator:\n- {name: other, literals: [a=b]}\n")
    done = rolled_out(tmp_path, folder)
    assert done.code == 1
    assert "has no Deployment waystation-" in done.told
    assert not done.calls


def test_without_kubectl_nothing_happens(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("mktemp", "rm", "awk", "sed", "grep"):
        (tools / tool).symlink_to(next(p for p in (Path("/usr/bin") / tool, Path("/bin") / tool) if p.exists()))
    done = subprocess.run(
        ["/bin/sh", str(K8S / "rollout.sh"), str(K8S / "overlays/dev")],
        env={"PATH": str(tools), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 127
    assert "kubectl" in done.stderr
