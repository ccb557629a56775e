// Command oracle runs Kubernetes' own code: it makes random cases from a seed, and answers them with the functions that the
// apiserver (create, update) and the DaemonSet controller (place, run) call. It prints one JSON object a line, as in
// tests/data/conformance.jsonl.
//
//	go run ./cmd/oracle -op run -seed 7 -count 4000
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
)

func main() {
	op := flag.String("op", "run", "which cases: create, update, place, run")
	seed := flag.Int64("seed", 1, "the same seed makes the same cases")
	count := flag.Int("count", 100, "how many")
	flag.Parse()
	// Upstream logs each fault that it finds twice.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	g := generator{rand.New(rand.NewSource(*seed))}
	answers := map[string]func() any{
		"create": func() any { return g.create() },
		"update": func() any { return g.update() },
		"place":  func() any { return g.place() },
		"run":    func() any { return g.run() },
	}
	answer, known := answers[*op]
	if !known {
		fmt.Fprintf(os.Stderr, "unknown -op %q; there are: create, update, place, run\n", *op)
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for range *count {
		if err := encoder.Encode(answer()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type runCase struct {
	Op             string            `json:"op"`
	DaemonSet      *appsv1.DaemonSet `json:"daemonSet"`
	Node           *corev1.Node      `json:"node"`
	ShouldRun      bool              `json:"shouldRun"`
	ShouldContinue bool              `json:"shouldContinue"`
}

// generator makes random objects from few words, so that selectors, taints and labels often match.
type generator struct{ *rand.Rand }

var (
	keys   = []string{"zone", "gen", "kubernetes.io/os", "node.kubernetes.io/not-ready", "dedicated", "node.kubernetes.io/unschedulable", "node.kubernetes.io/network-unavailable", "node.kubernetes.io/memory-pressure"}
	values = []string{"a", "b", "1", "2", "007", "-3", "", "1.5", "9223372036854775807", "9223372036854775808"}
	names  = []string{"n1", "n2", "n3"}
)

func (g generator) run() runCase {
	node, daemonSet := g.node(), g.daemonSet()
	run, keep := daemon.NodeShouldRunDaemonPod(klog.Background(), node, daemonSet)
	return runCase{"run", daemonSet, node, run, keep}
}

func (g generator) one(from []string) string { return from[g.Intn(len(from))] }

func (g generator) chance(percent int) bool { return g.Intn(100) < percent }

func (g generator) some(most int, from []string) []string {
	var some []string
	for range g.Intn(most + 1) {
		some = append(some, g.one(from))
	}
	return some
}

func (g generator) labels(most int) map[string]string {
	labels := map[string]string{}
	for _, key := range g.some(most, keys) {
		labels[key] = g.one(values)
	}
	return labels
}

func (g generator) node() *corev1.Node {
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: g.one(names), Labels: g.labels(5)},
	}
	effects := []string{"NoSchedule", "NoExecute", "PreferNoSchedule"}
	for range g.Intn(3) {
		taint := corev1.Taint{Key: g.one(keys), Value: g.one(values[:4]), Effect: corev1.TaintEffect(g.one(effects))}
		node.Spec.Taints = append(node.Spec.Taints, taint)
	}
	node.Spec.Unschedulable = g.chance(10)
	return node
}

func (g generator) daemonSet() *appsv1.DaemonSet {
	daemonSet := g.validDaemonSet()
	spec := &daemonSet.Spec.Template.Spec
	spec.HostNetwork = g.chance(30)
	if g.chance(15) {
		spec.NodeName = g.one(names)
	}
	if g.chance(25) {
		spec.NodeSelector = g.labels(2)
	}
	if g.chance(50) {
		spec.Affinity = g.affinity()
	}
	operators := []string{"", "Equal", "Exists", "Exists", "exists", "Lt"}
	effects := []string{"", "NoSchedule", "NoExecute", "PreferNoSchedule"}
	for range g.Intn(4) {
		toleration := corev1.Toleration{
			Key:      g.one(append(keys, "", "")),
			Operator: corev1.TolerationOperator(g.one(operators)),
			Effect:   corev1.TaintEffect(g.one(effects)),
		}
		if g.chance(50) {
			toleration.Value = g.one(values[:4])
		}
		if g.chance(20) {
			seconds := g.Int63n(300)
			toleration.TolerationSeconds = &seconds
		}
		spec.Tolerations = append(spec.Tolerations, toleration)
	}
	return daemonSet
}

func (g generator) affinity() *corev1.Affinity {
	affinity := &corev1.Affinity{}
	if g.chance(10) {
		return affinity
	}
	affinity.NodeAffinity = &corev1.NodeAffinity{}
	if g.chance(10) {
		return affinity
	}
	required := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{}}
	for range g.Intn(4) {
		var term corev1.NodeSelectorTerm
		for range g.Intn(3) {
			term.MatchExpressions = append(term.MatchExpressions, g.expression())
		}
		if g.chance(25) {
			term.MatchFields = append(term.MatchFields, g.field())
		}
		required.NodeSelectorTerms = append(required.NodeSelectorTerms, term)
	}
	affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = required
	return affinity
}

func (g generator) expression() corev1.NodeSelectorRequirement {
	operators := []string{"In", "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "in", ""}
	requirement := corev1.NodeSelectorRequirement{
		Key:      g.one(keys),
		Operator: corev1.NodeSelectorOperator(g.one(operators)),
	}
	switch requirement.Operator {
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		// Valid mostly; upstream skips a term with an invalid requirement.
		if g.chance(10) {
			requirement.Values = []string{g.one(values)}
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		requirement.Values = []string{g.one(values)}
		if g.chance(10) {
			requirement.Values = g.some(2, values)
		}
	default:
		requirement.Values = g.some(3, values)
	}
	return requirement
}

func (g generator) field() corev1.NodeSelectorRequirement {
	operators := []string{"In", "In", "In", "NotIn", "Exists", "Gt"}
	requirement := corev1.NodeSelectorRequirement{
		Key:      "metadata.name",
		Operator: corev1.NodeSelectorOperator(g.one(operators)),
		Values:   []string{g.one(names)},
	}
	if g.chance(10) {
		requirement.Key = g.one([]string{"spec.nodeName", "metadata.namespace"})
	}
	if g.chance(10) {
		requirement.Values = g.some(2, names)
	}
	return requirement
}
