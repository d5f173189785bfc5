# A Spack recipe, to be put in a repository of your own as packages/lolcats-hpc/package.py; then, from the sources:
#   spack dev-build lolcats-hpc@0.1.0
from spack.package import *


class LolcatsHpc(CMakePackage, CudaPackage):
    """Turns pretrained Llama-family Transformers into linear-attention models on a cluster: attention transfer and
    low-rank adjusting with MPI, parallel HDF5 and Kokkos."""

    homepage = "https://arxiv.org/abs/2410.10254"
    license("Apache-2.0")

    version("0.1.0")

    variant("native", default=True, description="Compile for the instruction set of the machine that builds")
    variant("nccl", default=True, description="Arrays travel between GPUs by NCCL", when="+cuda")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.24:", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10.7:+mpi")
    depends_on("kokkos@4.5:5+openmp cxxstd=20", when="~cuda")
    depends_on("onednn", when="~cuda")
    depends_on("fmt")
    depends_on("spdlog+fmt_external")
    depends_on("nlohmann-json")
    depends_on("cli11")
    depends_on("tomlplusplus")
    depends_on("xxhash")
    depends_on("googletest@1.11:+gmock", type="test")
    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-numpy", type="run")
    depends_on("py-h5py", type="run")
    depends_on("nccl@2.18:", when="+nccl")
    for arch in CudaPackage.cuda_arch_values:
        depends_on(f"kokkos@4.5:5+cuda+wrapper cxxstd=20 cuda_arch={arch}", when=f"+cuda cuda_arch={arch}")

    conflicts("cuda_arch=none", when="+cuda", msg="name the GPUs: cuda_arch=90")
    conflicts("%gcc@:11", msg="C++20 is needed")

    def cmake_args(self):
        args = [
            self.define_from_variant("LOLCATS_CUDA", "cuda"),
            self.define_from_variant("LOLCATS_NATIVE", "native"),
            self.define_from_variant("LOLCATS_NCCL", "nccl"),
            self.define("LOLCATS_TESTS", self.run_tests),
        ]
        if self.spec.satisfies("+cuda"):
            archs = self.spec.variants["cuda_arch"].value
            args += [
                self.define("CMAKE_CXX_COMPILER", self["kokkos"].kokkos_cxx),
                self.define("CMAKE_CXX_FLAGS", f"-arch=sm_{archs[0]}"),
                self.define("LOLCATS_CUDA_ARCHITECTURES", ";".join(archs)),
            ]
        return args
