package main

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/controller/daemon/util"
)

type placeCase struct {
	Op          string              `json:"op"`
	Pod         *corev1.Pod         `json:"pod"`
	Node        string              `json:"node"`
	Affinity    *corev1.Affinity    `json:"affinity"`
	Tolerations []corev1.Toleration `json:"tolerations"`
}

// place changes the template for a node as DaemonSetsController.syncNodes does.
func (g generator) place() placeCase {
	controller := true
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", GenerateName: "agent-", Labels: map[string]string{"app": "agent"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent", UID: "1", Controller: &controller, BlockOwnerDeletion: &controller}},
		},
		Spec: g.daemonSet().Spec.Template.Spec,
	}
	pod.Spec.NodeName = ""
	g.moreAffinity(&pod.Spec)
	g.daemonTolerations(&pod.Spec)
	node := g.one(names)
	spec := pod.Spec.DeepCopy()
	spec.Affinity = util.ReplaceDaemonSetPodNodeNameNodeAffinity(spec.Affinity, node)
	util.AddOrUpdateDaemonPodTolerations(spec)
	return placeCase{"place", pod, node, spec.Affinity, spec.Tolerations}
}

// moreAffinity adds affinity that the controller must not change.
func (g generator) moreAffinity(spec *corev1.PodSpec) {
	if spec.Affinity == nil || g.chance(50) {
		return
	}
	if spec.Affinity.NodeAffinity != nil {
		spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{{
			Weight:     3,
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{g.expression()}},
		}}
	}
	if g.chance(30) {
		selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}
		spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "zone", LabelSelector: selector}},
		}
	}
}

// daemonTolerations adds tolerations that are equal or similar to those that the controller adds.
func (g generator) daemonTolerations(spec *corev1.PodSpec) {
	keys := []string{"not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable", "network-unavailable"}
	operators := []string{"", "Equal", "Exists", "Exists"}
	effects := []string{"", "NoSchedule", "NoExecute", "PreferNoSchedule"}
	for range g.Intn(4) {
		toleration := corev1.Toleration{
			Key:      "node.kubernetes.io/" + g.one(keys),
			Operator: corev1.TolerationOperator(g.one(operators)),
			Effect:   corev1.TaintEffect(g.one(effects)),
		}
		if g.chance(20) {
			toleration.Value = g.one(values[:4])
		}
		if g.chance(30) {
			seconds := g.Int63n(3)
			toleration.TolerationSeconds = &seconds
		}
		at := g.Intn(len(spec.Tolerations) + 1)
		rest := append([]corev1.Toleration{toleration}, spec.Tolerations[at:]...)
		spec.Tolerations = append(spec.Tolerations[:at:at], rest...)
	}
}
