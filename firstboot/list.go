package firstboot

import "github.com/kbuild/kbuild/firstboot/config"

// Roles are the roles that a list exists for.
func Roles() []string { return []string{"", string(config.RoleInit)} }

// List is what must hold on a node of a role, in the order in which it reads.
// Steps that name what they need may run beside others. The role "" is that
// of a node that does not know its role yet; its list is the beginning of
// every other one. A role that has no list gets the empty one's only.
func List(role string) []Step {
	head := []Step{
		stepClock(),
		stepMetadata(),
		stepHostname(),
	}
	switch config.Role(role) {
	case config.RoleInit:
		return append(head,
			stepServiceRoute(),
			stepPreflight(),
			stepImages(),
			stepCertsCA(),
			stepKubeconfigKubelet(),
			stepKubeletStart(),
			stepCerts(),
			stepKubeconfig(),
			stepEtcd(),
			stepControlPlane(),
			stepWaitControlPlane(),
			stepUploadConfig(),
			stepUploadCerts(),
			stepMarkControlPlane(),
			stepBootstrapToken(),
			stepKubeletFinalize(),
			stepAddon(),
			stepNodeReady(),
		)
	default:
		return head
	}
}
