"""`waystation reindex` on a project whose embedding was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli_servers import Command, Project
from waystation.catalog import read_project, store_index
from waystation.cli.commands import app
from waystation_db.pool import Database
from waystation_db.store import open_store

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]  # processes, each of which imports everything

EMBED = """
def embed(texts):
    return [[float(text.count(letter)) for letter in {letters!r}] for text in texts]
"""


def embed_by(letters: str, folder: Path) -> None:
    """Configure an embedding that counts these letters."""
    (folder / f"count_{letters}.py").write_text(EMBED.format(letters=letters))
    keys = json.loads((folder / "langgraph.json").read_text())
    keys["store"] = {"index": {"dims": len(letters), "embed": f"./count_{letters}.py:embed", "fields": ["text"]}}
    (folder / "langgraph.json").write_text(json.dumps(keys))


def run(*arguments: str, project: Project, database_uri: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    environ = {"DATABASE_URI": database_uri}
    with Command.running(*arguments, cwd=project.folder, environ=environ) as command:
        return command.ended(), command.output


async def test_a_changed_embedding_is_refused_until_the_vectors_are_made_anew(
    db: Database, database_uri: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project")
    embed_by("abc", project.folder)
    async with open_store(db, index=await store_index(read_project(project.folder))) as store:
        for text in ("a", "bd", "d"):
            await store.aput(("n",), text, {"text": text})
    embed_by("abcd", project.folder)

    code, said = run("serve", "--port", "0", project=project, database_uri=database_uri)
    assert code != 0
    assert "store.index.dims is 4, but the vectors in the database have 3 numbers" in said
    assert "waystation reindex" in said

    code, said = run("reindex", project=project, database_uri=database_uri)
    assert code == 0, said
    assert "3 items wait for their vectors" in said
    assert said.endswith("Every vector is made.\n")
    async with open_store(db, index=await store_index(read_project(project.folder))) as store:
        assert [item.key for item in await store.asearch(("n",), query="d")] == ["d", "bd", "a"]

    assert "0 items wait" in run("reindex", "--continue", project=project, database_uri=database_uri)[1]


def test_without_an_index_there_is_nothing_to_do(
    tmp_path: Path, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Project(tmp_path / "project").folder)
    done = CliRunner().invoke(app, ["reindex"], env={"DATABASE_URI": database_uri})
    assert done.exit_code == 2
    assert done.output == "Error: there is nothing to index with: langgraph.json has no store.index\n"
