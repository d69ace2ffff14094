"""What the compile check of the CUDA files finds: planted faults."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.kernels import compile_cuda
from tests.kernels.compile_cuda import Compiled, hopper_faults, resources
from tests.kernels.resources import Resources

# What ptxas -v says and cuobjdump shows of a Hopper scan, cut to what the check reads.
_LOG = """
ptxas info    : Compiling entry function '_ZN9metaindex6device4sm9018maxsim_scan_kernelILNS_5CodecE3EEEvv' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 4 registers, used 0 barriers, 896 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN9metaindex6device4sm9018maxsim_scan_kernelILNS_5CodecE3EEEvv' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers
"""
_CODE = """
        /*0010*/              @P1 USETMAXREG.DEALLOC.CTAPOOL 0x48 ;                /* 0x0000000000000000 */
        /*0020*/                  UTMALDG.3D [UR8], [UR6], desc[UR4] ;
        /*0030*/              @P0 UTMALDG.3D [UR8], [UR6], desc[UR4] ;
        /*0040*/                  USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xd8 ;
        /*0050*/                  IGMMA.64x256x32.S8.S8 R24, gdesc[UR4], R24 ;
        /*0060*/                  IGMMA.64x256x32.S8.S8 R24, gdesc[UR4], R24 ;
        /*0070*/                  IGMMA.64x256x32.S8.S8 R24, gdesc[UR4], R24 ;
        /*0080*/             @!P2 IGMMA.64x256x32.S8.S8 R24, gdesc[UR4], R24, gsb0 ;
        /*0090*/                  IADD3 R215, R214, 0x1, RZ ;
"""
_FAULTS = {
    "bytes of stack": ("168 registers", "168 registers\n    64 bytes stack frame"),
    "ptxas on wgmma or setmaxnreg: (C7510) Potential": ("used 16", "used 16\n(C7510) Potential performance loss"),
    "3 of IGMMA.64x256x32.S8.S8 in place of 4": ("IGMMA.64x256x32.S8.S8 R24, gdesc[UR4], R24, gsb0", "NOP"),
    "older products: IMMA.16832.S8.S8": ("IADD3", "IMMA.16832.S8.S8"),
    "1 bulk tensor copies": ("@P0 UTMALDG.3D", "@P0 UTMALDG.2D"),
    "registers change to [216]": ("USETMAXREG.DEALLOC", "NOP.DEALLOC"),
    "registers change to [72, 240]": ("0xd8", "0xf0"),
    "more than three times the 160": ("Used 168", "Used 160"),
    "217 registers are used": ("R215", "R216"),
}


def test_numbers_are_read():
    nothing = {"shared": 0, "stack": 0, "spilled": 0}
    assert resources(_LOG) == {
        ("80", "maxsim_scan_kernel"): {"registers": 4, **nothing},
        ("90a", "maxsim_scan_kernel"): {"registers": 168, **nothing},
    }


def test_a_hopper_scan_as_it_should_be():
    assert list(hopper_faults("int8", Compiled(_LOG, _CODE))) == []


@pytest.mark.parametrize("fault", _FAULTS)
def test_faults_of_a_hopper_scan(fault):
    before, after = _FAULTS[fault]
    assert before in _LOG + _CODE
    (found,) = hopper_faults("int8", Compiled(_LOG.replace(before, after), _CODE.replace(before, after)))
    assert fault in found


_SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(float* data) {
    __shared__ float kept[32];
    float held[64];
    for (int i = 0; i < 64; ++i) held[i] = data[threadIdx.x + 1024 * i];
    kept[threadIdx.x % 32] = held[0];
    __syncthreads();
    for (int i = 0; i < 64; ++i) data[threadIdx.x * 64 + i] = held[i] * held[63 - i] + kept[i / 2];
}
"""


def test_a_kernel_that_is_forced_to_spill(tmp_path, monkeypatch):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine to compile CUDA C++ with")
    source = tmp_path / "spilling.cu"
    source.write_text(_SPILLING)
    with pytest.raises(subprocess.CalledProcessError) as failed:  # as it fails the build
        compile_cuda.compiled(source)
    assert "spill" in failed.value.stderr
    monkeypatch.setattr(compile_cuda, "OPTIONS", tuple(each for each in compile_cuda.OPTIONS if "Werror" not in each))
    found = resources(compile_cuda.compiled(source).log)
    assert sorted(found) == [("100", "spilling"), ("80", "spilling"), ("90a", "spilling")]
    for takes in found.values():
        assert takes["spilled"] > 0
        assert takes["registers"] <= 32
        assert takes["shared"] >= 128


def test_tables_bind_who_made_them(tmp_path, capsys):
    takes = {"registers": 40, "spilled": 0}
    path = tmp_path / "table.json"

    def said(version, found, *faults, update=False, partial=False):
        table = Resources(path, "nvcc", version, update=update)
        for name, numbers in found.items():
            table.add(name, numbers, faults)
        return table.close(partial=partial), capsys.readouterr().out

    assert said("13.0", {"one": takes, "two": takes}, update=True)[0] == 0
    found, text = said("13.0", {"one": takes, "two": takes})
    assert found == 0
    assert "<-" not in text
    more = takes | {"registers": 41}
    for version, code in (("13.0", 1), ("13.1", 0)):
        found, text = said(version, {"one": more, "two": takes})
        assert found == code
        assert "one <- was {'registers': 40, 'spilled': 0}" in text
        assert ("nvcc 13.1 is not 13.0" in text) == (version == "13.1")
        found, text = said(version, {"one": takes})
        assert found == code
        assert "two stands in table.json and is gone" in text
        assert said(version, {"one": takes}, partial=True)[0] == 0
        found, text = said(version, {"one": takes, "two": takes}, "it spills")
        assert found == 1
        assert "two <- it spills" in text
    assert said("13.0", {"one": takes, "two": takes, "three": takes})[0] == 1
