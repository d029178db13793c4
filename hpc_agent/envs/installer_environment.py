"""What installers and the builds that they start see of our environment: a list of names, not all but some. Pure.

Code of packages and repositories runs while they are built, and uv puts upper-case variables into addresses that
packages name. So nothing is handed on that has no use there, and nothing secret that could be left out.
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TEMP", "TMP"),
        # where a network is reached and who is trusted
        *(
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NETRC",
            "SSH_AUTH_SOCK",
            "KRB5CCNAME",
        ),
        # how things are compiled
        *("CC", "CXX", "FC", "F77", "F90", "CPP", "AR", "LD", "NVCC", "MPICC", "MPICXX", "CUDACXX", "CUDAHOSTCXX"),
        *(
            "CFLAGS",
            "CXXFLAGS",
            "FFLAGS",
            "CPPFLAGS",
            "LDFLAGS",
            "ARCHFLAGS",
            "MAKEFLAGS",
            "MAX_JOBS",
            "NPY_NUM_BUILD_JOBS",
        ),
        *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "LD_RUN_PATH"),
        *("PKG_CONFIG_PATH", "ACLOCAL_PATH", "MANPATH", "MODULEPATH", "LOADEDMODULES", "CARGO_HOME", "RUSTUP_HOME"),
        *("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDNN_PATH", "NCCL_HOME", "ROCM_HOME", "ROCM_PATH", "HIP_PATH"),
        *("MKLROOT", "OPENBLAS", "BLAS", "LAPACK", "FFTW_DIR", "HDF5_DIR", "NETCDF4_DIR", "GDAL_CONFIG", "PROJ_DIR"),
    }
)
_BEGINNINGS = (
    *("LC_", "XDG_", "UV_", "CMAKE_", "TORCH_CUDA_", "EBROOT", "EBVERSION"),
    *(
        "GIT_SSH",
        "GIT_SSL",
        "GIT_PROXY",
        "GIT_EXEC_PATH",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
    ),
)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_ROOT", "UV_PROJECT", "UV_TARGET", "UV_PREFIX", "UV_PUBLISH_")
"""Beginnings of variables that would turn an installer to another environment, or are for sending packages away."""

_IN_IMAGES = ("UV_", "PIP_", "SSL_CERT_FILE", *_PROXIES)
"""Beginnings of what installers in an image obey; everything else there is the image's own."""


def for_installers(environ: Mapping[str, str], *, pip: bool = False) -> dict[str, str]:
    """The part of ``environ`` that installers get; that for pip only where ``pip`` is one of them."""
    beginnings = (*_BEGINNINGS, "PIP_") if pip else _BEGINNINGS
    kept = {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(beginnings)) and not name.startswith(_ELSEWHERE)
    }
    # Proxies may hold a password. All programs know the lower-case names, which no address stands for.
    proxies = {name.lower(): value for name, value in sorted(environ.items()) if name.lower() in _PROXIES}
    return {**kept, **proxies}


def for_images(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of what installers get that they take along into an image."""
    return {name: value for name, value in environ.items() if name.startswith(_IN_IMAGES)}
