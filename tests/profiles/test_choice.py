from __future__ import annotations

from dataclasses import replace

import pytest

from profiles.choice import choose
from profiles.device import Accelerator, detect_device
from profiles.device_profile import profile_for
from profiles.errors import NothingFits, PinError
from profiles.plan import Pins
from profiles.reading import Reading, unknown
from profiles.recipes import estimate_weights
from profiles.shape import ModelFacts

MIB = 1 << 20
FREE = Pins()
# Room for Q8_0 with 4K of context and for Q4_K_M with 16K on a Raspberry Pi 5.
TIGHT = b"MemTotal: 8256208 kB\nMemAvailable: 6000000 kB\n"
NO_GPU = unknown("lib", "no GPU backend was built")


@pytest.fixture
def family(qwen35_4b):
    """The three fine-tunes of one base, untied as their cards' sizes say, and Q8_0 and Q4_K_M of each."""

    def facts(name, n_ctx_tuned, installed=()):
        shape = replace(qwen35_4b, name=name, n_ctx_tuned=n_ctx_tuned, tied=False)
        files = tuple(estimate_weights(shape, q, installed=q in installed) for q in ("Q4_K_M", "Q8_0"))
        return ModelFacts(name, shape, files)

    return [
        facts("smol-tools-4b", 4096),
        facts("smol-tools-4b-16k", 16384),
        facts("smol-tools-4b-32k", 32768),
    ]


@pytest.fixture
def plan_on(recorded, family):
    """The plan for a recorded device; `models` by default the family."""

    def make(name, pins=FREE, models=None, gpu=None, accelerators=(), **changes):
        device = detect_device(
            recorded(name, **changes), gpu_backend=gpu or NO_GPU, accelerators=accelerators
        )
        profile, why = profile_for(device)
        return choose(device, profile, models or family, pins, why_profile=why)

    return make


def chosen(plan):
    options = plan.chosen.options
    return plan.chosen.model, plan.chosen.quantization, options.n_ctx, options.kv_type_k


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orin-nano-8gb", ("smol-tools-4b-16k", "Q4_K_M", 16384, "f16")),
        ("orin-nx-16gb", ("smol-tools-4b-32k", "Q8_0", 32768, "f16")),
        ("agx-orin-32gb", ("smol-tools-4b-32k", "Q8_0", 32768, "f16")),
        ("pi4-8gb", ("smol-tools-4b", "Q4_K_M", 4096, "f16")),
        ("pi5-8gb", ("smol-tools-4b-16k", "Q4_K_M", 16384, "f16")),
        ("laptop-8gb", ("smol-tools-4b-16k", "Q4_K_M", 16384, "f16")),
        ("laptop-16gb", ("smol-tools-4b-32k", "Q8_0", 32768, "f16")),
        ("container-4gb", ("smol-tools-4b-16k", "Q4_K_M", 16384, "f16")),
    ],
)
def test_each_device_gets_the_best_that_fits_it(plan_on, name, expected):
    plan = plan_on(name)
    assert chosen(plan) == expected
    assert plan.chosen.total_bytes <= plan.budget_bytes
    assert plan.available_bytes - plan.headroom_bytes == plan.budget_bytes


@pytest.mark.parametrize("name", ["orin-nano-4gb", "pi4-4gb"])
def test_where_nothing_fits_it_says_how_much_is_missing_and_what_to_do(plan_on, name):
    with pytest.raises(NothingFits) as caught:
        plan_on(name)
    error = caught.value
    least = min(candidate.total_bytes for candidate in error.candidates)
    assert error.missing_bytes == least - error.budget_bytes > 0
    text = str(error)
    assert "\n" not in text
    assert f"free {error.missing_bytes / MIB:,.0f} MiB" in text
    assert "stop the desktop" in text
    assert "Q4_K_M with n_ctx=4096, q8_0 KV and n_ubatch=64" in text


def test_what_would_fit_instead_is_named(plan_on, recorded, family, qwen3_4b):
    with pytest.raises(
        NothingFits, match=r"; without what was fixed, smol-tools-4b-16k Q4_K_M .* would fit$"
    ):
        plan_on("orin-nano-8gb", Pins(n_parallel=60))
    device = detect_device(recorded("pi4-4gb"), gpu_backend=NO_GPU)
    small = replace(qwen3_4b, n_layer=4, name="small")
    others = [ModelFacts("small", small, (estimate_weights(small, "Q4_K_M"),))]
    with pytest.raises(
        NothingFits, match=r"; small Q4_K_M with n_ctx=4096, f16 KV and n_ubatch=128 would fit$"
    ):
        choose(device, profile_for(device)[0], family, FREE, others=others)


def test_what_does_not_fit_is_told_for_each_step(plan_on, qwen3_4b):
    plan = plan_on("pi5-8gb", models=[ModelFacts("qwen3", qwen3_4b, (estimate_weights(qwen3_4b, "Q8_0"),))])
    why = {step.what: step.why for step in plan.steps}
    assert plan.chosen.options.kv_type_k == "q8_0"  # 144 KiB a token in f16
    assert why["kv_type"].startswith("f16 needs ")
    assert why["kv_type"].endswith(" MiB too much")
    assert "MiB available (/proc/meminfo MemAvailable), 384 MiB left free" in why["memory budget"]


@pytest.mark.parametrize(
    ("first", "expected"), [("n_ctx", ("Q4_K_M", 16384)), ("quantization", ("Q8_0", 4096))]
)
def test_the_order_of_preference_is_the_profile_s(recorded, family, first, expected):
    device = detect_device(recorded("pi5-8gb", proc__meminfo=TIGHT), gpu_backend=NO_GPU)
    profile, _ = profile_for(device)
    order = (first, *(dimension for dimension in profile.run.order if dimension != first))
    run = profile.run.model_copy(update={"order": order, "quantizations": ("Q8_0", "Q4_K_M")})
    plan = choose(device, profile.model_copy(update={"run": run}), family, FREE)
    assert (plan.chosen.quantization, plan.chosen.options.n_ctx) == expected


@pytest.mark.parametrize(
    ("pins", "what", "value"),
    [
        (Pins(n_ctx=1000), "n_ctx", 1000),
        (Pins(kv_type="q8_0"), "kv_type", "q8_0"),
        (Pins(quantization="q8_0"), "quantization", "Q8_0"),
        (Pins(n_ubatch=32), "n_ubatch", 32),
        (Pins(use_extra_bufts=True), "use_extra_bufts", True),
        (Pins(n_threads=3), "n_threads", 3),
    ],
)
def test_what_the_user_has_fixed_stays_and_the_rest_adapts(plan_on, pins, what, value):
    plan = plan_on("laptop-16gb", pins)
    step = {step.what: step for step in plan.steps}[what]
    assert (step.value, step.why) == (value, "as asked")


GROUP = "sys__fs__cgroup__user.slice__user-1000.slice__session-3.scope__"


@pytest.mark.parametrize(
    "name", ["orin-nano-8gb-super", "pi5-8gb", "pi4-8gb", "agx-orin-32gb", "laptop-16gb"]
)
def test_under_the_limit_that_a_service_gets_its_plan_fits_again(plan_on, name):
    plan = plan_on(name)
    used = 90 * MIB  # by the program itself as it plans
    under_limit = {
        f"{GROUP}memory.max": b"%d" % plan.memory_max_bytes,
        f"{GROUP}memory.current": b"%d" % used,
    }
    again = plan_on(name, Pins(quantization=plan.chosen.quantization), **under_limit)
    assert chosen(again) == chosen(plan)
    assert plan.document()["memory"]["memory_max_bytes"] == plan.memory_max_bytes
    assert plan.memory_max_bytes % MIB == 0


def test_a_fixed_quantization_costs_context(plan_on):
    assert chosen(plan_on("pi5-8gb", proc__meminfo=TIGHT))[1:3] == ("Q4_K_M", 16384)
    fixed = plan_on("pi5-8gb", Pins(quantization="Q8_0"), proc__meminfo=TIGHT)
    assert chosen(fixed) == ("smol-tools-4b", "Q8_0", 4096, "f16")


def test_more_sequences_leave_less_context(plan_on):
    assert [chosen(plan_on("laptop-8gb", Pins(n_parallel=n)))[2] for n in (1, 2)] == [16384, 4096]


def test_a_type_whose_blocks_do_not_divide_the_heads_is_not_offered(plan_on, qwen3_4b):
    shape = replace(qwen3_4b, head_dim_k=80, head_dim_v=80)  # llama.cpp refuses: 80 is not a multiple of 32
    plan = plan_on("pi5-8gb", models=[ModelFacts("odd", shape, (estimate_weights(shape, "Q4_K_M"),))])
    assert {candidate.options.kv_type_k for candidate in plan.candidates} == {"f16"}


@pytest.mark.parametrize(
    ("pins", "found"),
    [
        (Pins(n_ctx=0), "n_ctx is 0; this model allows 1 to 262144"),
        (Pins(n_ctx=262145), "n_ctx is 262145; this model allows 1 to 262144"),
        (Pins(kv_type="q5_1"), "kv_type is 'q5_1'; allowed are f32, f16, q8_0"),
        (Pins(quantization="Q2_K"), "there is no quantization 'Q2_K' of it; there is Q4_K_M, Q8_0"),
        (Pins(n_parallel=0), "parallel is 0; allowed is 1 to 64"),
        (Pins(n_threads=0), "n_threads is 0; allowed is 1 to 512"),
        (Pins(n_ubatch=0), "n_ubatch is 0; allowed is 1 to 8192"),
    ],
)
def test_a_pin_that_cannot_be_is_refused(plan_on, pins, found):
    with pytest.raises(PinError) as caught:
        plan_on("laptop-16gb", pins)
    assert str(caught.value) == found


def test_a_context_beyond_the_tuned_one_is_allowed_when_asked_for_and_remarked(plan_on, family):
    plan = plan_on("laptop-16gb", Pins(n_ctx=8192), models=family[:1])
    assert plan.notes[0].startswith("smol-tools-4b was tuned on 4096 tokens")


def test_a_file_that_is_here_goes_before_one_that_must_be_downloaded(plan_on, family):
    shape = family[2].shape
    here = tuple(estimate_weights(shape, q, installed=q == "Q4_K_M") for q in ("Q8_0", "Q4_K_M"))
    plan = plan_on("laptop-16gb", models=[ModelFacts("smol-tools-4b-32k", shape, here)])
    assert plan.chosen.quantization == "Q4_K_M"
    assert {s.what: s.why for s in plan.steps}["quantization"] == "it is on this machine"
    both = tuple(estimate_weights(shape, q, installed=True) for q in ("Q8_0", "Q4_K_M"))
    plan = plan_on("laptop-16gb", models=[ModelFacts("smol-tools-4b-32k", shape, both)])
    assert {s.what: s.why for s in plan.steps}["quantization"] == "first choice of the profile"


def test_a_model_made_for_less_than_every_listed_context_gets_its_own(plan_on, qwen3_4b):
    shape = replace(qwen3_4b, name="small", n_ctx_train=1024)
    plan = plan_on("laptop-16gb", models=[ModelFacts("small", shape, (estimate_weights(shape, "Q4_K_M"),))])
    assert plan.chosen.options.n_ctx == 1024


class TestThreads:
    def test_performance_cores_of_a_hybrid_processor(self, plan_on):
        assert plan_on("laptop-16gb").n_threads == 4

    def test_a_quota_limits_them(self, plan_on):
        plan = plan_on("container-4gb")
        assert plan.n_threads == 2
        assert (
            "a quota of 2 cores (/sys/fs/cgroup/cpu.max)" in {s.what: s.why for s in plan.steps}["n_threads"]
        )

    def test_part_of_a_core_is_one_thread(self, plan_on):
        assert plan_on("container-4gb", **{"sys__fs__cgroup__cpu.max": b"40000 100000"}).n_threads == 1


class TestGpu:
    CUDA = Reading("cuda", "libggml-cuda.so")

    def test_a_jetson_without_cuda_is_told_so(self, plan_on):
        plan = plan_on("orin-nano-8gb")
        assert plan.chosen.options.n_gpu_layers == 0
        assert any("built without CUDA" in note for note in plan.notes)

    def test_a_jetson_with_cuda_offloads_everything_into_the_same_memory(self, plan_on):
        plan = plan_on("orin-nano-8gb", gpu=self.CUDA)
        options = plan.chosen.options
        assert (options.n_gpu_layers, options.use_mmap) == (33, False)
        assert plan.chosen.footprint.accelerator_bytes == 0
        assert plan.chosen.total_bytes > plan_on("orin-nano-8gb").chosen.footprint.weights

    @pytest.mark.parametrize(("free_mib", "n_layers"), [(24_000, 33), (2_500, range(8, 24)), (300, 0)])
    def test_a_card_gets_the_layers_that_its_memory_holds(self, plan_on, free_mib, n_layers):
        card = Accelerator(
            name="RTX", backend="cuda", total_bytes=24_000 * MIB, free_bytes=free_mib * MIB, unified=False
        )
        plan = plan_on("laptop-16gb", gpu=self.CUDA, accelerators=(card,))
        found = plan.chosen.options.n_gpu_layers
        assert found in n_layers if isinstance(n_layers, range) else found == n_layers
        assert plan.chosen.footprint.accelerator_bytes <= free_mib * MIB


def test_pressure_zram_and_throttling_are_remarked(plan_on):
    stalls = (
        b"some avg10=31.50 avg60=2.00 avg300=0.10 total=9\nfull avg10=12.25 avg60=1.00 avg300=0.00 total=7\n"
    )
    notes = plan_on("orin-nano-8gb", proc__pressure__memory=stalls).notes
    assert any("under pressure: everything waited for it 12.25 %" in note for note in notes)
    assert any("zram of" in note for note in notes)
    assert any("under-voltage" in note for note in plan_on("pi4-8gb").notes)


def test_unknown_memory_takes_the_smallest_and_says_so(plan_on):
    plan = plan_on("pi5-8gb", proc__meminfo=b"garbage")
    assert plan.chosen.total_bytes == min(c.total_bytes for c in plan.candidates)
    assert "the free memory is unknown" in {s.what: s.why for s in plan.steps}["memory budget"]
