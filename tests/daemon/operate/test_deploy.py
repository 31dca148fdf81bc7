"""The files in deploy/: they parse, they agree with each other and with the daemon, and what they share fits together."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from harness import ROOT
from looseends_daemon import config

DEPLOY = ROOT / "deploy"


def containers() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The pod of the stateful set, its sidecar, its service."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    [workload] = [one for one in documents if one["kind"] == "StatefulSet"]
    pod = workload["spec"]["template"]["spec"]
    [sidecar], [service] = pod["initContainers"], pod["containers"]
    claims = {claim["metadata"]["name"] for claim in workload["spec"]["volumeClaimTemplates"]}
    pod["volume names"] = claims | {volume["name"] for volume in pod["volumes"]}
    return pod, sidecar, service


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "from-a-field") for one in container["env"]}


def image() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile in order."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def image_variables() -> dict[str, str]:
    found = [words for name, words in image() if name == "ENV"]
    return dict(pair.split("=", 1) for words in found for pair in shlex.split(words))


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def under_a_mount(path: str, mounts: set[str]) -> bool:
    """Whether it lies in a folder of a mount, which the user of both makes, and is not the mount itself."""
    return any(path.startswith(f"{mount}/") for mount in mounts)


def test_the_pod_has_a_native_sidecar_that_shares_uid_spool_and_socket_with_the_service() -> None:
    pod, sidecar, service = containers()
    assert sidecar["restartPolicy"] == "Always", "without it an init container would have to end first"
    assert pod["securityContext"]["runAsUser"] > 0
    assert not {"runAsUser", "runAsGroup"} & {*sidecar["securityContext"], *service.get("securityContext", {})}
    theirs, ours = variables(sidecar), variables(service)
    assert ours["LOOSEENDS_URL"] in theirs["LOOSEENDS_SERVER_LISTEN"].split(",")
    assert ours["LOOSEENDS_SPOOL_DIR"] == theirs["LOOSEENDS_DETECT_SPOOLS"]
    mounted = [{mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]} for one in (sidecar, service)]
    assert mounted[0]["/spool"] == mounted[1]["/spool"]
    assert under_a_mount(ours["LOOSEENDS_SPOOL_DIR"], {*mounted[1]})
    assert {name for one in mounted for name in one.values()} <= pod["volume names"]
    assert "/state" not in mounted[1], "the service does not get the database"


@pytest.mark.parametrize("version", ["1.29", "1.33", kubernetes_validate.latest_version()])
def test_the_manifest_is_what_kubernetes_has_schemas_for(version: str) -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    assert [one["kind"] for one in documents] == ["Service", "StatefulSet"]
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    documents[1]["spec"]["template"]["spec"]["initContainers"][0]["restartpolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[1], version, strict=True)


def test_compose_shares_uid_spool_and_socket_too() -> None:
    services = compose()["services"]
    daemon, shop = services["looseends"], services["shop"]
    assert daemon["user"] == shop["user"]
    told = image_variables()
    assert shop["environment"]["LOOSEENDS_URL"] in told["LOOSEENDS_SERVER_LISTEN"].split(",")
    assert shop["environment"]["LOOSEENDS_SPOOL_DIR"] == told["LOOSEENDS_DETECT_SPOOLS"]
    assert under_a_mount(told["LOOSEENDS_DETECT_SPOOLS"], {"/spool"})
    named = {volume.split(":")[0] for one in services.values() for volume in one["volumes"]}
    assert named == set(compose()["volumes"])
    assert (ROOT / "deploy" / daemon["build"]["context"] / daemon["build"]["dockerfile"]).exists()
    [uid] = [words for name, words in image() if name == "ARG"]
    assert daemon["user"].split(":")[0] == uid.removeprefix("UID=")


def test_the_image_runs_as_nobody_special_and_copies_what_is_there() -> None:
    instructions = image()
    last = len(instructions) - 1 - [name for name, _ in reversed(instructions)].index("FROM")
    assert dict(instructions[last:])["USER"] == "looseends"
    assert not [name for name, _ in instructions if name == "ADD"]
    let_in = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [name for name in let_in if not (ROOT / name).exists()] == []
    assert {"client", "daemon", "dashboard", "pyproject.toml", "README.md", "LICENSE"} <= set(let_in)


@pytest.mark.parametrize("where", ["image", "kubernetes"])
def test_the_daemon_takes_the_variables_that_it_is_given(where: str) -> None:
    told = image_variables() if where == "image" else variables(containers()[1])
    settings = config.load(None, {name: value for name, value in told.items() if name.startswith("LOOSEENDS_")})
    assert settings.detect.spools == ("/spool/journals",)
    assert settings.storage.path == "/state/looseends.db"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make a volume as Kubernetes does, owned by root with a group")
def test_both_find_each_other_in_a_volume_that_belongs_to_root(processes: Any, state_dir: Path) -> None:
    """As kubelet mounts it with fsGroup: root's, group 10001, 2775. The service is killed; the daemon reads what it left."""
    uid, told, ours = 10001, variables(containers()[1]), variables(containers()[2])
    state_dir.chmod(0o755)
    for name in ("state", "spool"):
        (state_dir / name).mkdir()
        os.chown(state_dir / name, 0, uid)
        (state_dir / name).chmod(0o2775)

    def here(values: dict[str, str]) -> dict[str, str]:
        moved = {key: value.replace("/s", f"{state_dir}/s").replace(":3637", ":0") for key, value in values.items()}
        return {**moved, "HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}

    as_them = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", sys.executable)
    daemon = processes.start(*as_them, "-m", "looseends.cli", "serve", env=here(told), cwd=state_dir)
    daemon.wait_for("Ctrl-C stops")
    code = (
        "import looseends, time; looseends.init()\n"
        "with looseends.track('nightly.report'):\n    looseends.flush(); print('begun', flush=True); time.sleep(600)"
    )
    service = processes.start(*as_them, "-c", code, env=here(ours), cwd=state_dir)
    service.wait_for("begun")
    [journal] = [one for one in (state_dir / "spool" / "journals").iterdir() if one.is_dir()]
    assert journal.stat().st_uid == uid
    service.kill()
    looked = (*as_them, "-m", "looseends.cli", "tail", "-f", "verdict:lost")
    processes.start(*looked, env=here(told), cwd=state_dir).wait_for("nightly.report", 30)
