package config

import "github.com/kbuild/kbuild/images"

// ImageList is what the names of the cluster's images depend on. Who bakes
// images, who looks for them, and who writes static pods and add-ons all go by
// it.
func (c ClusterConfiguration) ImageList() images.ListConfig {
	l := images.ListConfig{
		KubernetesVersion: c.KubernetesVersion, ImageRepository: c.ImageRepository, HyperKube: c.UseHyperKubeImage,
		EtcdExternal: c.Etcd.External != nil,
		DNSType:      c.DNS.Type, DNSRepository: c.DNS.ImageRepository, DNSTag: c.DNS.ImageTag,
		DNSDisabled: c.DNS.Disabled, ProxyDisabled: c.Proxy.Disabled,
	}
	if e := c.Etcd.Local; e != nil {
		l.EtcdRepository, l.EtcdTag = e.ImageRepository, e.ImageTag
	}
	return l
}
