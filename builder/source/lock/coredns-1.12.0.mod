module kbuild.dev/build/coredns

go 1.22.7

require github.com/coredns/coredns v1.12.0
