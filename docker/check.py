"""Checks docker/ without a Docker engine.

- compose.yaml against the JSON schema of the Compose Specification, and what no schema says: that names lead somewhere, that every variable
  is in env.example, that no secret is in the file.
- The Dockerfile with hadolint. Its build stage's RUN lines are run in a plain folder that holds what an engine would be sent (.dockerignore),
  and what the binary links must be in the packages that the runtime stage installs.
- Each Flywheel service's command and environment, by that binary: it refuses a command line or a key that it does not know.

FLYWHEEL_PROFILE is Cargo's profile for the build, dev if not set: the steps are the same. CARGO_TARGET_DIR is used as it is.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

DOCKER = Path(__file__).resolve().parent
ROOT = DOCKER.parent
# What a Debian image without any package of ours has.
BASE_PACKAGES = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libzstd1"}

problems = []


def check(is_so, problem):
    if not is_so:
        problems.append(problem)


def interpolated(text, variables, used):
    """As Compose does it: $$, ${NAME}, ${NAME:-default}, ${NAME:?message}."""

    def value(match):
        if match[0] == "$$":
            return "$"
        used.add(match[1])
        default = match[2][2:] if (match[2] or "").startswith(":-") else None
        check(match[1] in variables or default is not None, f"compose.yaml: {match[1]} is not in env.example")
        return variables.get(match[1], default or "")

    return re.sub(r"\$\$|\$\{([A-Z_]+)(:[-?][^}]*)?\}", value, text)


def walked(node, of_text):
    if isinstance(node, dict):
        return {key: walked(value, of_text) for key, value in node.items()}
    if isinstance(node, list):
        return [walked(value, of_text) for value in node]
    return of_text(node) if isinstance(node, str) else node


def check_compose():
    text = (DOCKER / "compose.yaml").read_text()
    raw = yaml.safe_load(text)
    lines = [line for line in (DOCKER / "env.example").read_text().splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    used = set()
    compose = walked(raw, lambda value: interpolated(value, variables, used))
    for unused in sorted(variables.keys() - used):
        problems.append(f"env.example: nothing uses {unused}")

    schema = json.loads((DOCKER / "schema/compose-spec.json").read_text())
    for error in jsonschema.Draft202012Validator(schema).iter_errors(compose):
        problems.append(f"compose.yaml: {'/'.join(map(str, error.absolute_path))}: {error.message}")

    services = compose["services"]
    volumes = set()
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            check(other in services, f"compose.yaml: {name} depends on {other}, which there is not")
            check("healthcheck" in services.get(other, {}), f"compose.yaml: {name} waits for the health of {other}, which says none")
        for network in service.get("networks", []):
            check(network in compose["networks"], f"compose.yaml: {name}: there is no network {network}")
        for volume in service.get("volumes", []):
            volumes.add(volume.split(":")[0])
        image = service["image"]
        check("build" in service or re.search(r":\d", image), f"compose.yaml: {name}: {image} names no version")
        if "build" in service:
            check((DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file(), f"compose.yaml: {name} has no Dockerfile")
        for key, value in service.get("environment", {}).items():
            written = str(raw["services"][name]["environment"].get(key, ""))
            is_secret = re.search(r"PASSWORD|KEY|SECRET|TOKEN|URL$", key) and "LINKS__BASE_URL" not in key
            check(not is_secret or "${" in written, f"compose.yaml: {name}: {key} is a secret and stands in the file: {value!r}")
    check(volumes == set(compose["volumes"]), f"compose.yaml: volumes used {sorted(volumes)}, declared {sorted(compose['volumes'])}")
    return services


def instructions(dockerfile):
    """(instruction, rest) of each, in order; lines that go on are joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", dockerfile.read_text()))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages(dockerfile):
    """The instructions of each stage, by its name, or by its number."""
    found = {}
    for instruction, rest in instructions(dockerfile):
        if instruction == "FROM":
            words = rest.split()
            stage = found[words[2] if len(words) > 2 and words[1].upper() == "AS" else str(len(found))] = []
        else:
            stage.append((instruction, rest))
    return found


def copy_context(to):
    """What an engine is sent: the project without .dockerignore's. Files that are gone here are removed there; times are kept for Cargo."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")]

    def is_ignored(path):
        parents = [path, *path.parents]
        return any(fnmatch.fnmatch(str(parent), pattern.removeprefix("**/")) for parent in parents for pattern in ignored)

    wanted = set()
    for folder, folders, files in os.walk(ROOT):
        at = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not is_ignored(at / name)]
        for name in files:
            if is_ignored(at / name):
                continue
            wanted.add(at / name)
            (to / at).mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / at / name, to / at / name)
    for path in [path for path in to.rglob("*") if path.is_file()]:
        if path.relative_to(to) not in wanted:
            path.unlink()


def build():
    """Runs the build stage's RUN lines in a plain folder; gives the binary that the runtime stage copies."""
    subprocess.run(["hadolint", "--failure-threshold", "warning", DOCKER / "Dockerfile"], check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    # Always the same place: Cargo keeps what it built by the path of the source.
    work = target / "docker-check"
    source, out = work / "src", work / "out"
    shutil.rmtree(out, ignore_errors=True)
    source.mkdir(parents=True, exist_ok=True)
    copy_context(source)
    found = stages(DOCKER / "Dockerfile")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "FLYWHEEL_PROFILE": os.environ.get("FLYWHEEL_PROFILE", "dev")}
    for instruction, rest in found["build"]:
        if instruction == "RUN":
            # Mounts are the engine's, and its root is our folder.
            words = [word for word in shlex.split(rest) if not word.startswith("--mount")]
            words = [str(out) if word == "/out" else word for word in words]
            print("docker/Dockerfile:", " ".join(words), flush=True)
            subprocess.run(words, cwd=source, env=environment, check=True)

    installed = set(BASE_PACKAGES)
    binary = None
    for instruction, rest in found["1"]:
        if instruction == "RUN":
            apt = re.search(r"apt-get install([^&]*)", rest)
            installed |= {word for word in (apt[1].split() if apt else []) if not word.startswith("-")}
        if instruction == "COPY":
            copied, _ = rest.removeprefix("--from=build ").split()
            binary = out / Path(copied).relative_to("/out")
    if binary is None or not binary.exists():
        sys.exit("Dockerfile: the runtime stage copies no binary that the build stage made")
    check_links(binary, installed)
    return binary


def check_links(binary, installed):
    linked = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    check("not found" not in linked, f"the binary links what is not there:\n{linked}")
    if not shutil.which("dpkg"):
        print("skipped: which packages the binary links is looked up with dpkg, which is not here")
        return
    for library in re.findall(r"=> (/\S+)", linked):
        owners = set()
        for path in {library, library.removeprefix("/usr"), os.path.realpath(library)}:
            found = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True)
            owners |= {line.split(":")[0] for line in found.stdout.splitlines()}
        check(owners & installed, f"Dockerfile: the binary links {library} of {', '.join(owners) or 'no package'}, which the image lacks")


def check_settings(services, binary):
    """The binary's own word on what each service gives it. Where it starts, it would serve: so only up to the configuration."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("FLYWHEEL_")}
    for name, service in services.items():
        if "build" not in service:
            continue
        environment = {**bare, **{key: str(value) for key, value in service["environment"].items()}}
        shown = subprocess.run([binary, "config", "show"], env=environment, cwd="/", capture_output=True, text=True)
        check(shown.returncode == 0, f"compose.yaml: {name}: {shown.stderr.strip()}")
        for secret in re.findall(r"replace\S*", shown.stdout):
            problems.append(f"flywheel config show tells a secret of {name}: {secret}")
        told = subprocess.run([binary, *service["command"], "--help"], env=bare, cwd="/", capture_output=True, text=True)
        check(told.returncode == 0, f"compose.yaml: {name}: {shlex.join(service['command'])}: {told.stderr.strip()}")


services = check_compose()
binary = build()
check_settings(services, binary)
if problems:
    sys.exit("docker/ has mistakes:\n  " + "\n  ".join(problems))
print(f"docker/: {len(services)} services, the image's build and what it links are as they should be")
