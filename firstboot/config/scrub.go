package config

// ScrubSecrets returns n without its secrets: when they have served, the frozen copy
// has no use for them. It stays valid.
func (n *Node) ScrubSecrets() *Node {
	f := *n
	f.Scrubbed = true
	f.Init.BootstrapTokens = nil
	f.Init.CertificateKey = ""
	f.Init.PKI = nil
	f.Join.Discovery.TLSBootstrapToken = ""
	if t := f.Join.Discovery.BootstrapToken; t != nil {
		known := *t
		known.Token = ""
		f.Join.Discovery.BootstrapToken = &known
	}
	return &f
}
