module kbuild.dev/build/coredns

go 1.16

require github.com/coredns/coredns v1.8.6
replace github.com/json-iterator/go => github.com/json-iterator/go v1.1.12
replace github.com/modern-go/reflect2 => github.com/modern-go/reflect2 v1.0.2
