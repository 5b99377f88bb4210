module kbuild.dev/build/etcd

go 1.24

require go.etcd.io/etcd/server/v3 v3.5.24
require go.etcd.io/etcd/etcdctl/v3 v3.5.21
replace github.com/json-iterator/go => github.com/json-iterator/go v1.1.12
replace github.com/modern-go/reflect2 => github.com/modern-go/reflect2 v1.0.2
