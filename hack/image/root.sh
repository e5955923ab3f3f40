# shellcheck shell=bash disable=SC2034,SC2154
# The file trees that images are made of. Nothing can be pulled here, so an image holds what was built, the shared
# libraries that it loads, and the few files that glibc and TLS want to find.

image_names=(pause coredns mongo operator trainer samples)

# image_root NAME DIRECTORY: fills the empty DIRECTORY with the image's files.
image_root() {
    local name=$1 root=$2
    case $name in
        pause) gcc -static -Os -s -Wall -Werror -o "$root/pause" "$THOLE_ROOT/hack/image/pause.c" ;;
        coredns) cp "$(tool_directory coredns)/coredns" "$root/coredns" ;;
        mongo) cp "$(tool_directory ferretdb)/ferretdb" "$root/mongo" ;;
        samples)
            ensure_packages busybox-static "${packages_samples[@]}"
            mkdir -p "$root/bin" "$root/datasets"
            cp /bin/busybox "$root/bin/busybox"
            cp -r /usr/share/datasets/fashion-mnist "$root/datasets/fashion-mnist"
            ;;
        operator | trainer)
            root_base "$root"
            cmake --install "$THOLE_ROOT/build/release" --prefix "$root" --component "$name" --strip >/dev/null ||
                die "cannot install the $name from build/release: cmake --preset release && cmake --build --preset release"
            [[ -x $root/bin/thole-$name ]] || die "build/release has no thole-$name: cmake --build --preset release"
            root_libraries "$root" "$root/bin/thole-$name"
            ;;
    esac
}

image_entrypoint() {
    case $1 in
        operator | trainer) echo "/bin/thole-$1" ;;
        samples) echo /bin/busybox ;;
        *) echo "/$1" ;;
    esac
}

# image_inputs NAME: a text that changes when the image would, and is cheap to make.
image_inputs() {
    local name=$1 root
    sha256sum "$THOLE_ROOT"/hack/image/*
    case $name in
        coredns) tool_directory coredns ;;
        mongo) tool_directory ferretdb ;;
        operator | trainer)
            root=$THOLE_ROOT/build/release/thole-$name
            [[ -x $root ]] || die "build/release has no thole-$name: cmake --preset release && cmake --build --preset release"
            sha256sum "$root"
            { shared_libraries "$root"; echo /etc/ssl/certs/ca-certificates.crt; } | xargs stat -L -c '%n %s %Y'
            ;;
    esac
}

root_base() {
    local root=$1
    mkdir -p "$root"/{etc/ssl/certs,proc,sys,dev,usr/lib,usr/lib64,var/lib}
    mkdir -m 1777 "$root/tmp"
    ln -s usr/lib "$root/lib"
    ln -s usr/lib64 "$root/lib64"
    printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
}

root_libraries() {
    local root=$1 library
    while read -r library; do install -D -m 755 "$library" "$root$library"; done < <(shared_libraries "$2")
}

# shared_libraries PROGRAM: what the linker says, and what glibc loads on its own: libgcc_s to end threads, and, before
# glibc 2.34, name services in libraries of their own.
shared_libraries() {
    local libc
    ldd "$1" | awk '$2 == "=>" && $3 !~ /^\// { print $1 > "/dev/stderr"; exit 1 } { for (i = 1; i <= 3; i++) if ($i ~ /^\//) { print $i; break } }' ||
        die "$1 needs a shared library that is not there"
    libc=$(ldd "$1" | awk '$1 == "libc.so.6" { print $3 }')
    ls "${libc%/*}"/{libgcc_s.so.1,libnss_dns.so.2,libnss_files.so.2,libresolv.so.2} 2>/dev/null || true
}
