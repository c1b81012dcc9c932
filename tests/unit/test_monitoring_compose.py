"""docker-compose.yml: valid, and every command, port, variable, check and file in it is one of ours.

No Docker engine is at hand: the file is read as Compose would, and held against the code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from compose_spec import PyCompose

from monitoring_files import PROMETHEUS, ROOT
from waystation.cli import health
from waystation.cli.commands import app
from waystation.config import Settings, settings_environment

EXAMPLE = ROOT / "deploy" / "compose"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_NO_SETTINGS = {"HOME", "PYTHONDONTWRITEBYTECODE", "PORT"}
"""Of Python and the image. PORT is read by the command line and by the health check."""
_OURS = ("migrate", "api", "worker")


def compose(**environ: str) -> dict[str, Any]:
    """The file with variables replaced, as Compose does it."""

    def value(match: re.Match[str]) -> str:
        if found := environ.get(match[1]):
            return found
        assert match[2] == "-", f"{match[1]} is required"
        return match[3]

    text = (ROOT / "docker-compose.yml").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return yaml.safe_load(_VARIABLE.sub(value, "\n".join(lines)))


COMPOSE = compose(POSTGRES_PASSWORD="p4ssw0rd", GRAFANA_PASSWORD="s3cret")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def parsed(command: list[str]) -> tuple[str, dict[str, Any]]:
    """The subcommand of a `waystation …` and its options. Exits as the command line would where it is wrong."""
    assert command[0] == "waystation"
    group: Any = typer.main.get_command(app)
    with group.make_context("waystation", command[1:], resilient_parsing=True) as context:
        name, subcommand, rest = group.resolve_command(context, command[1:])
        with subcommand.make_context(name, rest, parent=context) as inner:
            return name, inner.params


def test_the_file_follows_the_specification() -> None:
    read = PyCompose.from_json(json.dumps(COMPOSE))
    read.validate()
    assert set(read.service_names()) == SERVICES.keys()


def test_the_specification_is_asked() -> None:
    with pytest.raises(ValueError, match="imagee"):
        PyCompose.from_json(json.dumps({"services": {"api": {"imagee": "x"}}}))


def test_services_are_small_hardened_and_watched() -> None:
    for name, service in SERVICES.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":[\w.-]+$", service["image"]) or service["image"] == "waystation/reference-graphs"
        assert "container_name" not in service, "one name is one container: --scale would fail"
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    # The exporters' images have nothing that could ask them.
    unchecked = {name for name, service in SERVICES.items() if "test" not in service.get("healthcheck", {})}
    assert unchecked == {"migrate", "postgres-exporter", "redis-exporter"}


def test_temporary_file_systems_have_no_options_that_only_one_engine_knows() -> None:
    """Podman refuses uid= and gid=, and a service with them does not start."""
    given = [mount for service in SERVICES.values() for mount in service.get("tmpfs", [])]
    options = {option.split("=")[0] for mount in given for option in mount.partition(":")[2].split(",") if option}
    assert options <= {"mode", "size"}


def test_who_waits_for_somebody_healthy_waits_for_somebody_with_a_health_check() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            match how["condition"]:
                case "service_healthy":
                    assert "test" in SERVICES[other]["healthcheck"]
                case "service_completed_successfully":
                    assert other == "migrate"
                case condition:
                    pytest.fail(f"{name} waits for {condition}")


def test_networks_and_volumes_are_declared_and_mounted_files_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("networks", ())) <= COMPOSE["networks"].keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert all(SERVICES[name]["networks"] == ["data"] for name in ("postgres", "redis"))
    assert COMPOSE["networks"]["data"]["internal"]


def test_commands_are_commands_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(SERVICES["migrate"]["command"])[0] == "migrate"
    monkeypatch.setenv("PORT", "8000")
    name, options = parsed(SERVICES["api"]["command"])
    assert (name, options["port"], options["host"], options["with_worker"]) == ("serve", 8000, "0.0.0.0", False)
    name, options = parsed(SERVICES["worker"]["command"])
    assert (name, options["health_port"], options["health_host"]) == ("worker", 8001, "0.0.0.0")


@pytest.mark.parametrize("name", _OURS)
def test_variables_are_settings(name: str) -> None:
    environ = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
    known = {variable for source in settings_environment().values() for variable in source.names}

    settings = Settings.load({key: value for key, value in environ.items() if key not in _NO_SETTINGS})

    assert environ.keys() <= known | _NO_SETTINGS
    assert settings.database_uri == "postgres://waystation:p4ssw0rd@postgres:5432/waystation"
    assert settings.redis_uri == "redis://redis:6379/0"


def test_containers_are_given_longer_to_stop_than_runs_to_hand_over() -> None:
    for name in ("api", "worker"):
        grace = SERVICES[name]["environment"]["BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS"]
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= grace + 20


def test_health_checks_ask_the_port_that_is_served() -> None:
    assert {"/ok", "/metrics"} <= health._SERVED  # pyright: ignore[reportPrivateUsage]  # nothing else says so
    assert "/ok" in (ROOT / "docker" / "healthcheck.py").read_text()
    assert 'cp "$source/docker/healthcheck.py" "$target/healthcheck.py"' in (ROOT / "docker/assemble.sh").read_text()
    for name, port in (("api", 8000), ("worker", 8001)):
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "/api/healthcheck.py"]
        assert SERVICES[name]["environment"]["PORT"] == port
    assert SERVICES["api"]["ports"] == ["127.0.0.1:8123:8000"]
    assert SERVICES["worker"]["environment"]["WAYSTATION_BASE_URL"] == "http://api:8000"


def test_prometheus_scrapes_services_at_their_ports() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    found = {
        job["job_name"]: (job["dns_sd_configs"][0]["names"][0], job["dns_sd_configs"][0]["port"])
        for job in config["scrape_configs"]
        if "dns_sd_configs" in job
    }
    fixed = {
        target.split(":")[0]
        for job in config["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    }

    assert found == {"waystation-api": ("api", 8000), "waystation-worker": ("worker", 8001)}
    assert fixed - {"localhost"} == {"postgres-exporter", "redis-exporter"}
    # Whoever is scraped is in a network with Prometheus.
    assert all("default" in SERVICES[name].get("networks", ["default"]) for name in (*fixed - {"localhost"}, *_OURS))


def test_nothing_starts_without_passwords() -> None:
    with pytest.raises(AssertionError, match="POSTGRES_PASSWORD is required"):
        compose(GRAFANA_PASSWORD="x")
    with pytest.raises(AssertionError, match="GRAFANA_PASSWORD is required"):
        compose(POSTGRES_PASSWORD="x")


def test_the_examples_name_the_variables_that_the_file_reads() -> None:
    asked = {match[1] for match in _VARIABLE.finditer((ROOT / "docker-compose.yml").read_text())}
    offered = set(re.findall(r"^#?([A-Z_]+)=", (EXAMPLE / "example.env").read_text(), re.MULTILINE))
    settings = {name for source in settings_environment().values() for name in source.names} | {"WAYSTATION_MODEL"}
    passed_on = re.findall(r"^#?([A-Z_]+)=", (EXAMPLE / "example.waystation.env").read_text(), re.MULTILINE)

    assert asked == offered
    assert {name for name in passed_on if name.startswith("WAYSTATION_")} <= settings
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "waystation.env"} <= set(ignored)


def test_what_the_image_of_the_reference_graphs_copies_is_there_and_not_ignored() -> None:
    steps = (EXAMPLE / "Dockerfile").read_text()
    sources = [source for line in re.findall(r"^COPY (.+) \S+$", steps, re.MULTILINE) for source in line.split()]
    kept = {line[1:] for line in (EXAMPLE / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}

    assert sources
    for source in sources:
        assert list(ROOT.glob(source))
        assert source in kept


def test_hadolint_finds_nothing_in_the_image_of_the_reference_graphs() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    checked = subprocess.run([hadolint, EXAMPLE / "Dockerfile"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
