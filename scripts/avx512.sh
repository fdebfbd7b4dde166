#!/usr/bin/env bash
# The exactness tests with AVX-512, alone, with VNNI and with BF16, on any x86-64 processor: linked statically,
# and run by Linux on a processor that Bochs emulates. qemu knows no AVX-512, and Bochs no programs without a system.
# Installs what is missing, which needs Debian's packages, and builds the emulator at the first run.
#
# AVX512_SECONDS  how long the emulator may take (default 1800)
#
# Arguments are names of test programs, all of whose tests are then run with every set (`lib`: the unit tests). Without
# any: what reaches every kernel in a few minutes, as a second of computing takes about a hundred here.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
folder="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/avx512"
mkdir -p "$folder"

# Bochs 3.0 and a Linux that runs on its newest processor are in Debian 13. Nothing of it is installed: it has package lists
# of its own, signed by the same keys. The emulator is built from source, as the package is for a later C library than
# many have, and made to stop after every instruction, which is slow.
debian=trixie
keys=/usr/share/keyrings/debian-archive-keyring.gpg

# Set, test program, and what of it. every_isa starts itself with every set there is; few dimensions are the same with BF16.
runs=(
    "avx512bf16 every_isa"
    "avx512bf16 exactness --skip of_few_dimensions"
    "avx512bf16 filter_terms"
    "avx512vnni exactness"
    "avx512vnni filter_terms"
    "avx512vnni small_d"
    "avx512vnni refusals"
    "avx512 exactness"
    "avx512 small_d"
    "avx512 refusals"
    "avx512 bounds matrix"
    "avx512 codes product::a_search_loses"
    "avx512 codes product::what_follows"
    "avx512 lib backend::cpu --skip labels_follow_codewords_that_wander"
)
if [ $# -gt 0 ]; then
    runs=()
    for isa in avx512bf16 avx512vnni avx512; do
        for program in "$@"; do runs+=("$isa $program"); done
    done
fi
mapfile -t programs < <(printf '%s\n' "${runs[@]}" | cut -d ' ' -f 2 | sort -u)

if ! { command -v xorriso && command -v cpio && command -v xz && command -v make && command -v g++ &&
    [ -e "$keys" ] && [ -e /bin/busybox ] && [ -e /usr/share/bochs/BIOS-bochs-latest ] &&
    [ -e /usr/share/bochs/VGABIOS-lgpl-latest ] && [ -e /usr/lib/ISOLINUX/isolinux.bin ] &&
    [ -e /usr/lib/syslinux/modules/bios/ldlinux.c32 ]; } >/dev/null; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -q
    $sudo apt-get install -qy --no-install-recommends xorriso cpio xz-utils make g++ busybox-static bochsbios vgabios \
        isolinux syslinux-common debian-archive-keyring
fi

# Points apt at that Debian.
other_debian() {
    mkdir -p "$folder"/apt/{lists/partial,archives/partial}
    touch "$folder/apt/status"
    echo "deb [signed-by=$keys] http://deb.debian.org/debian $debian main" >"$folder/apt/sources.list"
    echo "deb-src [signed-by=$keys] http://deb.debian.org/debian $debian main" >>"$folder/apt/sources.list"
    cat >"$folder/apt/apt.conf" <<CONF
Dir::State "$folder/apt";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "root";
CONF
    export APT_CONFIG="$folder/apt/apt.conf"
    apt-get update -q
}

bochs="$folder/bochs"
if ! { [ -x "$bochs/bochs" ] && compgen -G "$folder/kernel/boot/vmlinuz-*"; } >/dev/null; then
    (
        cd "$folder"
        other_debian
        rm -rf bochs kernel bochs_* linux-image-*
        apt-get source -q --download-only --tar-only bochs
        # A kernel for virtual machines: all that the tests need is built in.
        package="$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')"
        apt-get download -q "$package"
        dpkg -x linux-image-*.deb kernel
        mkdir bochs
        tar -xf bochs_*.orig.tar.xz -C bochs --strip-components 1
        cd bochs
        CFLAGS="-O2 -w" CXXFLAGS="-O2 -w" ./configure --with-nogui --enable-x86-64 --enable-avx --enable-evex \
            --enable-all-optimizations --disable-debugger --disable-docbook >configure.log
        make -j"$(nproc)" bochs >make.log 2>&1 || { tail -n 30 make.log >&2; exit 1; }
    )
fi

arguments=()
for program in "${programs[@]}"; do
    if [ "$program" = lib ]; then arguments+=(--lib); else arguments+=(--test "$program"); fi
done
# A folder of its own: other flags would make all other builds start anew.
RUSTFLAGS="-C target-feature=+crt-static" cargo test --no-run --target "$target" --target-dir "$folder/target" \
    --no-default-features "${arguments[@]}" 2>&1 | tee "$folder/build.log"

# The system: a shell, the programs, and what runs them.
root="$folder/root"
rm -rf "$root" "$folder/iso"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,tests} "$folder/iso/isolinux"
cp /bin/busybox "$root/bin/"
for program in "${programs[@]}"; do
    source="tests/$program"
    [ "$program" != lib ] || source=src/lib.rs
    built="$(sed -n "s|.*Executable .*$source[./a-z]* (\(.*\))|\1|p" "$folder/build.log" | head -n 1)"
    [ -n "$built" ] || { echo "avx512: cargo built no test program $program" >&2; exit 1; }
    strip -o "$root/tests/$program" "$built"
done
{
    cat <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
exec >/dev/ttyS0 2>&1 </dev/null
echo "avx512: processor $(grep -o 'avx512[a-z0-9_]*' /proc/cpuinfo | sort -u | tr '\n' ' ')"
run() {
    set=$1 name=$2
    shift 2
    echo "avx512: start $set $name"
    CODEWORD_ISA=$set "/tests/$name" --test-threads=1 --show-output "$@" >/tmp/output 2>&1
    code=$?
    # All that a program prints would take long through a serial port.
    if [ $code -eq 0 ]; then grep -E '^(test result:|skipped:)' /tmp/output; else tail -n 200 /tmp/output; fi
    echo "avx512: end $set $name $code"
}
INIT
    echo "export CODEWORD_TEST_SCALE=small CODEWORD_TEST_REQUIRE=avx512bf16,avx512vnni,avx512,avx2 RUST_BACKTRACE=0"
    printf 'run %s\n' "${runs[@]}"
    # The script ends the emulator at this line.
    echo 'echo "avx512: done"'
    echo "sleep 1000"
} >"$root/init"
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1 >"$folder/iso/isolinux/initrd")
cp "$folder"/kernel/boot/vmlinuz-* "$folder/iso/isolinux/linux"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$folder/iso/isolinux/"
# Without ACPI: to enter it, Linux asks for the system management mode, and Bochs stops as that is left.
cat >"$folder/iso/isolinux/isolinux.cfg" <<'CFG'
default linux
prompt 0
label linux
    kernel linux
    append initrd=initrd console=ttyS0,115200 loglevel=1 nokaslr mitigations=off nopti acpi=off
CFG
xorriso -as mkisofs -quiet -o "$folder/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$folder/iso" 2>"$folder/xorriso.log"

cat >"$folder/bochsrc" <<BOCHSRC
display_library: nogui
cpu: model=sapphire_rapids, count=1, ips=100000000, reset_on_triple_fault=0
clock: sync=none
megs: 1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$folder/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$folder/serial.txt
log: $folder/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
BOCHSRC

: >"$folder/serial.txt"
timeout "${AVX512_SECONDS:-1800}" "$bochs/bochs" -q -f "$folder/bochsrc" </dev/null >"$folder/bochs.out" 2>&1 &
emulator=$!
trap 'kill "$emulator" 2>/dev/null || true' EXIT

# The clock inside is not that outside, so times are taken here.
ended=0 done=no failed=() begun=$SECONDS
while IFS= read -r line; do
    line="${line%$'\r'}"
    case "$line" in
        "avx512: processor "*)
            echo "booted in $((SECONDS - begun)) s, has ${line#avx512: processor }"
            ;;
        "avx512: start "*)
            start=$SECONDS
            ;;
        "avx512: end "*)
            read -r isa program code <<<"${line#avx512: end }"
            ended=$((ended + 1))
            [ "$code" = 0 ] || failed+=("$isa/$program")
            echo "$isa $program: exit status $code after $((SECONDS - start)) s"
            ;;
        *"Kernel panic"*)
            echo "$line"
            break
            ;;
        "avx512: done")
            done=yes
            break
            ;;
        skipped:* | "test result: ok. 0 passed"*)
            echo "$line"
            failed+=("nothing may be skipped")
            ;;
        *) echo "$line" ;;
    esac
done < <(tail -n +1 -s 0.2 -f --pid="$emulator" "$folder/serial.txt")

if [ "$done" = no ]; then
    echo "avx512: the emulated system stopped before all tests had run; see $folder/bochs.out and $folder/bochs.log" >&2
    exit 1
fi
if [ "$ended" -ne ${#runs[@]} ] || [ ${#failed[@]} -gt 0 ]; then
    echo "avx512: FAILED: ${failed[*]:-$ended of ${#runs[@]} ended}" >&2
    exit 1
fi
echo "avx512: $ended test programs passed in $((SECONDS - begun)) s"
