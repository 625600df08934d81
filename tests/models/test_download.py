"""Fetching from a hub that breaks off, lies, refuses and stops; what was sent is counted."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
from huggingface_hub import constants, hf_hub_download, scan_cache_dir, try_to_load_from_cache

from edge.errors import CatalogueError, HubUnreachable
from edge.models.hub_cache import CachePlace
from edge.models.store import resolve
from tests.models.conftest import CONTENT, PATH, REPO, SIZE
from tests.models.fake_hub import COMMIT

ETAG = hashlib.sha256(CONTENT).hexdigest()


def pull(ref: str = f"{REPO}:Q4_K_M", **options: object):
    """The path, and the lines that were told."""
    lines: list[str] = []
    return resolve(ref, lines.append, **options).path, lines


def refusal(ref: str = f"{REPO}:Q4_K_M") -> str:
    with pytest.raises(CatalogueError) as error:
        resolve(ref, lambda line: None)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def partial(cache):
    return cache / "models--tiny--model-GGUF" / "blobs" / f"{ETAG}.incomplete"


def blobs(cache) -> list[str]:
    return sorted(path.name for path in (cache / "models--tiny--model-GGUF" / "blobs").glob("*"))


class TestWhole:
    def test_the_file_lies_where_huggingface_hub_looks_for_it(self, hub, cache, monkeypatch):
        path, lines = pull()
        assert path.read_bytes() == CONTENT
        assert lines == [f"fetching {PATH} (400.0 kB) of {REPO}"]
        assert hub.bytes_sent == SIZE
        assert try_to_load_from_cache(REPO, PATH) == str(path)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hf_hub_download(REPO, PATH) == str(path)
        report = scan_cache_dir(cache)
        assert not report.warnings
        [repo] = report.repos
        assert (repo.repo_id, repo.size_on_disk, repo.refs["main"].commit_hash) == (REPO, SIZE, COMMIT)
        assert blobs(cache) == [ETAG]

    def test_a_second_time_nothing_is_asked(self, hub):
        first, _ = pull()
        n_requests = len(hub.requests)
        assert pull() == (first, [])
        assert len(hub.requests) == n_requests

    def test_asking_again_fetches_nothing_and_a_damaged_length_everything(self, hub):
        path, _ = pull()
        assert pull(refresh=True) == (path, [])
        assert hub.bytes_sent == SIZE
        path.resolve().write_bytes(CONTENT[:1000])
        assert pull(refresh=True)[0].read_bytes() == CONTENT
        assert hub.bytes_sent == 2 * SIZE

    def test_a_new_version_is_fetched_when_asked_for(self, hub):
        old, _ = pull()
        hub.repos[REPO][PATH] = CONTENT[::-1]
        hub.commit = "f" * 40
        assert pull()[0] == old
        new, _ = pull(refresh=True)
        assert new.read_bytes() == CONTENT[::-1]
        assert pull()[0] == new

    def test_a_file_that_huggingface_hub_fetched_is_used(self, hub):
        path = hf_hub_download(REPO, PATH, endpoint=hub.endpoint)
        n_requests = len(hub.requests)
        assert pull() == (type(pull()[0])(path), [])
        assert len(hub.requests) == n_requests

    def test_the_bytes_are_reported_as_they_come(self, hub):
        seen = []
        pull(on_bytes=seen.append)
        done = [transfer.done_bytes for transfer in seen]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, SIZE)
        assert len(set(done)) > 3
        assert {(t.name, t.total_bytes, t.resumed_bytes) for t in seen} == {(PATH, SIZE, 0)}

    def test_the_token_goes_to_the_hub_and_not_to_the_store_behind_it(self, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub.private[REPO] = "hf_secret"
        path, _ = pull()
        assert path.read_bytes() == CONTENT
        by_store = {path.startswith("/cdn/"): token for _, path, _, token in hub.requests}
        assert by_store == {True: False, False: True}

    def test_a_mirror_that_only_lists_trees_will_do(self, hub):
        hub.faults.no_describe = True
        assert pull()[0].read_bytes() == CONTENT

    def test_without_symbolic_links_the_file_itself_lies_in_the_snapshot(self, hub, cache, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True, raising=False)
        path, _ = pull()
        assert not path.is_symlink()
        assert path.read_bytes() == CONTENT
        assert blobs(cache) == []
        assert pull(refresh=True)[0] == path
        assert hub.bytes_sent == SIZE


class TestBroken:
    @pytest.mark.parametrize("cuts", [[0], [1], [100_000], [100_000, 50_000, 1, 200_000], [SIZE - 1]])
    def test_a_broken_connection_goes_on_where_it_ended(self, hub, cache, cuts):
        hub.faults.cut_after = list(cuts)
        path, lines = pull()
        assert path.read_bytes() == CONTENT
        assert hub.bytes_sent == SIZE
        ranges = hub.content_requests()
        assert len(ranges) == len(cuts) + 1
        ends = [sum(cuts[: i + 1]) for i in range(len(cuts))]
        assert ranges == [None, *(f"bytes={end}-" if end else None for end in ends)]
        assert len([line for line in lines if "going on in" in line]) == len(cuts)
        assert blobs(cache) == [ETAG]

    def test_a_server_that_stays_away_leaves_what_came_for_the_next_run(self, hub, cache):
        hub.faults.cut_after = [250_000, 0, 0, 0, 0, 0]
        lines: list[str] = []
        with pytest.raises(CatalogueError, match="broke off and does not come back"):
            resolve(f"{REPO}:Q4_K_M", lines.append)
        assert lines[-1] == f"250.0 kB of 400.0 kB of {PATH} are kept; the same command goes on from there"
        assert partial(cache).read_bytes() == CONTENT[:250_000]
        hub.faults.cut_after = []
        path, _ = pull()
        assert path.read_bytes() == CONTENT
        assert hub.bytes_sent == SIZE
        assert hub.content_requests()[-1] == "bytes=250000-"

    def test_a_server_that_stops_in_the_middle(self, hub, cache):
        hub.faults.block_s = 0.01
        hub.when_sent(100_000, hub.stop)
        message = refusal()
        assert "broke off and does not come back" in message
        size = partial(cache).stat().st_size
        assert 0 < size < SIZE
        assert partial(cache).read_bytes() == CONTENT[:size]

    def test_a_server_that_falls_silent(self, hub, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
        hub.faults.stall_after = 100_000
        started = time.monotonic()
        hub.when_sent(100_000, lambda: setattr(hub.faults, "stall_after", None))
        assert pull()[0].read_bytes() == CONTENT
        assert time.monotonic() - started < 10
        assert hub.bytes_sent == SIZE

    @pytest.mark.parametrize("statuses", [[500], [503, 502, 504], [429], [408]])
    def test_answers_that_pass_are_tried_again(self, hub, statuses):
        hub.faults.statuses = list(statuses)
        path, lines = pull()
        assert path.read_bytes() == CONTENT
        assert [line for line in lines if f"the server answered {statuses[0]}" in line]

    def test_a_hub_that_is_busy_for_a_moment_is_asked_again(self, hub):
        hub.faults.passing = [503, 429, 502, 504]  # two of the description, two of the file
        hub.faults.passing.insert(2, 0)
        assert pull()[0].read_bytes() == CONTENT
        assert hub.faults.passing == []

    def test_retry_after_is_waited_for(self, hub):
        hub.faults.statuses, hub.faults.retry_after_s = [429], 1
        started = time.monotonic()
        pull()
        assert time.monotonic() - started >= 1

    def test_an_answer_that_does_not_pass_is_not_tried_again(self, hub):
        hub.faults.statuses = [403, 403]
        assert "forbids access" in refusal()
        assert hub.faults.statuses == [403]

    def test_a_server_without_ranges_starts_over(self, hub):
        hub.faults.cut_after, hub.faults.no_ranges = [100_000], True
        assert pull()[0].read_bytes() == CONTENT
        assert hub.bytes_sent == SIZE + 100_000

    def test_bytes_from_another_place_are_not_appended(self, hub, cache):
        hub.faults.cut_after, hub.faults.wrong_range = [100_000], True
        assert "broke off" in refusal()
        assert partial(cache).read_bytes() == CONTENT[:100_000]

    def test_what_came_is_reported_as_resumed(self, hub, cache):
        partial(cache).parent.mkdir(parents=True)
        partial(cache).write_bytes(CONTENT[:300_000])
        seen = []
        pull(on_bytes=seen.append)
        assert {transfer.resumed_bytes for transfer in seen} == {300_000}
        assert seen[0].done_bytes == 300_000
        assert hub.bytes_sent == SIZE - 300_000

    def test_a_whole_partial_file_is_only_checked(self, hub, cache):
        partial(cache).parent.mkdir(parents=True)
        partial(cache).write_bytes(CONTENT)
        assert pull()[0].read_bytes() == CONTENT
        assert hub.bytes_sent == 0


class TestWrong:
    def test_a_wrong_byte_is_found_and_the_file_fetched_once_more(self, hub):
        hub.faults.flip = [200_000]
        path, lines = pull()
        assert path.read_bytes() == CONTENT
        assert "fetching it once more" in lines[1]
        assert hub.bytes_sent == 2 * SIZE

    def test_a_file_that_is_wrong_twice_is_refused_and_not_kept(self, hub, cache):
        hub.faults.flip = [0, 399_999]
        message = refusal()
        assert f"announced is {ETAG}; nothing was kept" in message
        assert blobs(cache) == []
        assert pull()[0].read_bytes() == CONTENT

    @pytest.mark.parametrize("length", [100_000, SIZE, SIZE + 5])
    def test_a_damaged_or_too_long_partial_file_costs_one_fetch(self, hub, cache, length):
        partial(cache).parent.mkdir(parents=True)
        partial(cache).write_bytes(b"\0" * length)
        assert pull()[0].read_bytes() == CONTENT
        assert hub.content_requests() == ([None] if length >= SIZE else [f"bytes={length}-", None])

    def test_a_file_shorter_than_announced(self, hub, cache):
        hub.faults.announced_extra = 1000
        assert "ends before the 401000 bytes announced" in refusal()
        assert blobs(cache) == []

    def test_a_file_longer_than_announced(self, hub, cache):
        hub.faults.sent_extra = 1000
        assert "is longer than the 400000 bytes announced" in refusal()
        assert blobs(cache) == []

    @pytest.mark.parametrize(
        "name", ["../../../x-Q4_K_M.gguf", "/etc/x-Q4_K_M.gguf", "a/../../x-Q4_K_M.gguf"]
    )
    def test_a_name_that_leaves_the_repository_is_refused(self, hub, cache, tmp_path, name):
        hub.repos[REPO] = {name: CONTENT}
        hub.faults.bare_path = name
        before = set(tmp_path.rglob("*"))
        refusal()
        assert set(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("commit", "path", "etag"),
        [
            ("c", "../x.gguf", "e"),
            ("c", "a/../../x.gguf", "e"),
            ("c", "/x.gguf", "e"),
            ("c", "a//x.gguf", "e"),
            ("c", "./x.gguf", "e"),
            ("c", "a\\x.gguf", "e"),
            ("c", "x\0.gguf", "e"),
            ("..", "x.gguf", "e"),
            ("c/d", "x.gguf", "e"),
            ("c", "x.gguf", ".."),
            ("c", "x.gguf", "../e"),
            ("c", "x.gguf", ""),
            ("c", "x.gguf", "e" * 200),
        ],
    )
    def test_a_server_s_names_do_not_leave_the_cache(self, tmp_path, commit, path, etag):
        CachePlace(tmp_path, "c", "a/x y.gguf", "e-1.2")
        with pytest.raises(CatalogueError, match="the hub"):
            CachePlace(tmp_path, commit, path, etag)


class TestRefused:
    def test_no_such_repository(self, hub):
        message = refusal("tiny/none")
        assert "tiny/none and tiny/none-GGUF are not on http://127.0.0.1" in message
        assert "a private repository needs HF_TOKEN" in message

    def test_a_private_repository_without_a_token(self, hub):
        hub.private[REPO] = "hf_secret"
        assert "a private repository needs HF_TOKEN" in refusal()

    def test_a_wrong_token(self, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        hub.faults.api_status, hub.faults.error_message = 401, "Invalid credentials in Authorization header"
        message = refusal()
        assert "does not accept the token" in message
        assert "hf_wrong" not in message

    def test_a_gated_repository(self, hub):
        hub.gated.add(REPO)
        message = refusal()
        assert f"{REPO} is gated (403): accept its terms at {hub.endpoint}/{REPO}" in message

    @pytest.mark.parametrize(
        ("status", "found"),
        [(403, "forbids access"), (429, "too many requests"), (500, "answers 500"), (503, "answers 503")],
    )
    def test_what_the_api_answers_is_said(self, hub, status, found):
        hub.faults.api_status = status
        assert found in refusal()

    def test_what_a_head_answers_is_said(self, hub):
        hub.faults.head_status = 502
        assert "answers 502" in refusal()

    def test_a_file_that_was_removed_meanwhile(self, hub):
        hub.faults.head_status, hub.faults.error_code = 404, "EntryNotFound"
        assert "does not have that file any more" in refusal()

    def test_a_portal_that_answers_everything(self, hub):
        hub.faults.html = True
        assert "does not answer like a hub" in refusal()

    def test_a_server_that_names_no_commit(self, hub):
        hub.faults.no_commit = True
        assert "check HF_ENDPOINT" in refusal()

    def test_nobody_there(self, hub):
        hub.stop()
        with pytest.raises(HubUnreachable) as error:
            resolve(f"{REPO}:Q4_K_M", lambda line: None)
        assert f"127.0.0.1:{hub.port} cannot be reached for {REPO}" in str(error.value)

    @pytest.mark.parametrize(
        "endpoint", ["nonsense", "http://", "ftp://127.0.0.1:1", "http://[::1", "http://a b"]
    )
    def test_an_endpoint_that_is_no_address(self, hub, monkeypatch, endpoint):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert REPO in refusal() or "does not answer" in refusal()

    def test_a_disk_that_is_too_full(self, hub, cache):
        hub.faults.announced_extra = 1 << 60
        message = refusal()
        assert "are to be fetched and" in message
        assert "set HF_HOME" in message
        assert hub.bytes_sent == 0

    def test_a_cache_that_cannot_be_written(self, hub, cache):
        cache.write_text("a file")
        assert "cannot be written" in refusal()


class TestChoice:
    def test_a_quantization_that_is_not_there_lists_those_that_are(self, hub):
        assert f"there is no Q5_K_M file: {REPO} has Q8_0 (800.0 kB), Q4_K_M (400.0 kB)" in refusal(
            f"{REPO}:Q5_K_M"
        )

    def test_the_companion_repository_is_looked_into(self, hub):
        assert pull("tiny/model:q4_k_m")[0].read_bytes() == CONTENT

    def test_both_repositories_are_listed(self, hub):
        hub.repos["tiny/model"] = {"model-BF16.gguf": b"GGUF"}
        message = refusal("tiny/model:Q2_K")
        assert "tiny/model has BF16 (4 bytes); tiny/model-GGUF has Q8_0" in message

    def test_a_checkpoint_alone_is_pointed_to_convert(self, hub):
        hub.repos["tiny/checkpoint"] = {"model.safetensors": b"x"}
        assert "smoltools-edge convert" in refusal("tiny/checkpoint")

    def test_a_file_s_name_is_taken_for_a_quantization(self, hub):
        hub.repos["t/two"] = {"a-Q8_0.gguf": CONTENT, "b-Q8_0.gguf": CONTENT}
        message = refusal("t/two:Q8_0")
        assert "t/two has 2 files for Q8_0: a-Q8_0.gguf (400.0 kB), b-Q8_0.gguf" in message
        assert pull("t/two:b-q8_0.gguf")[0].name == "b-Q8_0.gguf"

    def test_a_catalogue_name_is_fetched_from_its_repositories(self, hub):
        hub.repos["enfuse/smol-tools-4b"] = {"smol-tools-4b-q8_0.gguf": CONTENT}
        path, _ = pull("smol-tools-4b:Q8_0")
        assert path.name == "smol-tools-4b-q8_0.gguf"
        assert pull("smol-tools-4b")[0] == path


class TestOffline:
    def test_what_is_there_is_used(self, hub, monkeypatch):
        path, _ = pull()
        hub.stop()
        assert pull()[0] == path
        again, lines = pull(refresh=True)
        assert again == path
        assert "cannot be reached" in lines[-1]
        assert str(path) in lines[-1]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert pull(f"{REPO.lower()}:q4_k_m")[0].read_bytes() == CONTENT

    def test_what_is_not_there_is_told_with_what_is(self, hub, monkeypatch):
        pull()
        n_requests = len(hub.requests)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        message = refusal(f"{REPO}:Q8_0")
        assert message.startswith("HF_HUB_OFFLINE is set")
        assert "on this machine: Q4_K_M (400.0 kB)" in message
        assert len(hub.requests) == n_requests

    def test_what_was_made_here_is_not_asked_for(self, hub, tmp_path):
        path = tmp_path / "own" / "models" / "smol-tools-4b" / "smol-tools-4b-q8_0.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        assert pull("smol-tools-4b", refresh=True) == (path, [])
        assert hub.requests == []


class TestTogether:
    def test_two_at_once_fetch_once(self, hub):
        hub.faults.block_s = 0.005
        results: list[object] = []

        def one() -> None:
            results.append(pull())

        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {path.read_bytes() for path, _ in results} == {CONTENT}
        assert hub.bytes_sent == SIZE
        waited = [lines for _, lines in results if any("another process" in line for line in lines)]
        assert len(waited) == 2

    def test_another_writer_on_a_disk_without_locks_is_noticed(self, hub, cache):
        hub.faults.block_s = 0.01

        def write() -> None:
            with partial(cache).open("ab") as file:
                file.write(b"foreign")

        hub.when_sent(100_000, write)
        assert "another process writes to" in refusal()
