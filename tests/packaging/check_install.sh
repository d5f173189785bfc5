#!/usr/bin/env bash
# Installs a build to a new prefix and uses it from there: a program of another project against the library, the programs,
# their manual pages and completion, the job scripts.  usage: check_install.sh BUILD SOURCES
set -euo pipefail
build=$1 sources=$2
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
if grep -q "^LOLCATS_SANITIZE:STRING=." "$build/CMakeCache.txt"; then
    echo "SKIPPED: a build with sanitizers is not for others' programs"
    exit 77
fi
cmake --install "$build" --prefix "$prefix/usr" >"$prefix/log" || fail "cmake --install: $(cat "$prefix/log")"

# A project that finds the package by its prefix alone.
cmake -S "$sources/tests/packaging/consumer" -B "$prefix/consumer" -DCMAKE_PREFIX_PATH="$prefix/usr" \
    -DKokkos_ROOT="$(sed -n 's/^Kokkos_DIR:[A-Z]*=//p' "$build/CMakeCache.txt")" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_COMPILER="$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")" >"$prefix/log" 2>&1 ||
    fail "$(cat "$prefix/log")"
cmake --build "$prefix/consumer" >"$prefix/log" 2>&1 || fail "$(cat "$prefix/log")"
! grep -rqF -e "$sources" -e "$build" "$prefix/usr/lib" --include=*.cmake || fail "the package names the sources"
"$prefix/consumer/consumer"

# Every program runs, and has its page and its completion.
for source in "$sources"/src/apps/*.cpp; do
    program=$(basename "$source" .cpp)
    "$prefix/usr/bin/$program" --version | grep -q "^$program " || fail "$program --version"
    page=$prefix/usr/share/man/man1/$program.1
    grep -q "^.TH" "$page" || fail "$page"
    "$prefix/usr/bin/$program" --help | grep -oE -- '--[a-z0-9-]+' | sort -u >"$prefix/help"
    sed 's/\\-/-/g' "$page" | grep -oE -- '--[a-z0-9-]+' | sort -u >"$prefix/page"
    diff "$prefix/help" "$prefix/page" || fail "--help and $page differ"
    complaints=$({ command -v mandoc >/dev/null && mandoc -T lint -W warning "$page"; } || true)
    [ -z "$complaints" ] || fail "$complaints"
    complaints=$({ command -v man >/dev/null && man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null; } || true)
    [ -z "$complaints" ] || fail "$complaints"
    [ -s "$prefix/usr/share/bash-completion/completions/$program" ] || fail "no completion of $program"
done
command -v mandoc >/dev/null || echo "not checked: the style of manual pages, mandoc is not installed"
command -v man >/dev/null || echo "not checked: manual pages by man, which is not installed"

# Completion as readline asks for it: complete_to "EXPECTED" WORD...
source "$prefix/usr/share/bash-completion/completions/lolcats_lora"
complete_to() {
    local expected=$1
    shift
    COMP_WORDS=(lolcats_lora "$@") COMP_CWORD=$# COMPREPLY=()
    _lolcats || true # its status says whether there was a word to offer
    [ "${COMPREPLY[*]}" = "$expected" ] || fail "completion of '$*': '${COMPREPLY[*]}', not '$expected'"
}
complete -p lolcats_generate | grep -q _lolcats || fail "lolcats_generate is not completed"
complete_to "--lora-rank --lora-alpha --lora-dropout --lora-modules" --lora-
complete_to "f32 bf16 fp8" --dtype ""
complete_to "terrace" --attention = ter
complete_to "teacher terrace sliding none" --attention =
complete_to "--window --window-dropout --window-dropout-kind" --shuffle --win
complete_to "" --window ""
touch "$prefix/model_of_mine"
complete_to "$prefix/model_of_mine" --model "$prefix/mod"

# The job scripts find the programs where they are: bin_of ROOT GPUS, their directory on nodes with so many GPUs.
bin_of() (
    export LOLCATS_ROOT=$1 LOLCATS_SITE=$prefix/site.sh
    echo "site_gpus_per_node=$2" >"$LOLCATS_SITE"
    source "$LOLCATS_ROOT/jobs/common.sh"
    load_site
    echo "$site_bin"
)
shared=$prefix/usr/share/lolcats-hpc
[ -r "$shared/jobs/linearize_8b.sh" ] || fail "no job script"
[ -x "$(bin_of "$shared" 0)/lolcats_plan" ] || fail "site_bin=$(bin_of "$shared" 0)"
[ "$(bin_of "$shared" 8)" = "$(bin_of "$shared" 0)" ] || fail "site_bin=$(bin_of "$shared" 8) with GPUs"
[ "$(bin_of "$sources" 0)" = "$sources/build/bin" ] || fail "site_bin=$(bin_of "$sources" 0)"
[ "$(bin_of "$sources" 8)" = "$sources/build-cuda/bin" ] || fail "site_bin=$(bin_of "$sources" 8) with GPUs"
"${LOLCATS_PYTHON:-/usr/bin/python3}" "$shared/tools/inspect/lolcats_inspect" --help >/dev/null || fail "lolcats_inspect"
echo "installed, found, used"
