module kbuild.dev/build/etcd

go 1.14

require go.etcd.io/etcd v0.5.0-alpha.5.0.20200824191128-ae9734ed278b
replace github.com/json-iterator/go => github.com/json-iterator/go v1.1.12
replace github.com/modern-go/reflect2 => github.com/modern-go/reflect2 v1.0.2
