module kbuild.dev/build/flannel

go 1.26.0

require github.com/flannel-io/flannel v0.28.10
replace github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc => ./vpc
replace github.com/flannel-io/flannel => ./link
