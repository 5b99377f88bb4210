package cluster

import (
	"fmt"
	"strings"
)

// Loss says what a cluster loses with one of its control planes for good.
type Loss struct {
	Says string // in words; empty is nothing that it needs
	Ends bool   // all that its API holds goes with it
}

// Peer is a member of etcd with a vote.
type Peer struct {
	Name string
	Well bool
}

// Quorum is how many of etcd's voters must be well.
func Quorum(voters int) int { return voters/2 + 1 }

// LossOfLast is the loss of a cluster's last control plane, which is said to be
// who ("this node"). What its API holds is lost where its etcd is local.
func LossOfLast(who string, localEtcd bool) Loss {
	return Loss{who + " is the cluster's last control plane: with it the cluster ends, and all that its API holds is lost", localEtcd}
}

// LossOfMember is the loss of who's member of a local etcd that has the given
// others.
func LossOfMember(who string, others []Peer) Loss {
	var ill []string
	for _, p := range others {
		if !p.Well {
			ill = append(ill, p.Name)
		}
	}
	voters, well := len(others), len(others)-len(ill)
	switch {
	case voters == 0:
		return Loss{who + " holds the cluster's only member of etcd: with it all that the API holds is lost", true}
	case well < Quorum(voters):
		return Loss{Says: fmt.Sprintf("without %s etcd has no quorum: of the %d other members %d are well, %d are needed (not well: %s)", who, voters, well, Quorum(voters), strings.Join(ill, ", "))}
	}
	return Loss{}
}
