package main

import (
	"context"
	"errors"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
)

type cause struct {
	Field   string `json:"field"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

// judged is an object and upstream's answer for it.
type judged struct {
	Op      string            `json:"op"`
	Allowed bool              `json:"allowed"`
	Causes  []cause           `json:"causes"`
	Object  *appsv1.DaemonSet `json:"object"`
}

type createCase struct {
	judged
	// The object before upstream's defaults.
	Raw *appsv1.DaemonSet `json:"raw"`
}

type updateCase struct {
	judged
	Old *appsv1.DaemonSet `json:"old"`
}

var (
	labelKeys = []string{
		"app", "a/b", "x.y/z", "/name", "a/", "a/b/c", "Example.com/x", "EXAMPLE", "", "-a", strings.Repeat("a", 63),
		strings.Repeat("a", 64), "ä", strings.Repeat("b", 250) + ".c/x", strings.Repeat("b", 254) + "/x", "a\n", "a\"<>&b", "tab\t",
	}
	labelValues = []string{
		"agent", "", "a", strings.Repeat("x", 63), strings.Repeat("x", 64), "a b", "-x", "ä", "e\u0301", "\u200b", "v\n", "<b>",
		"\u2028", "\x07\x00", "日本", "😀", "\U000e0001", `"q"\`, "1.0",
	}
	objectNames = []string{
		"agent", "Agent", strings.Repeat("a", 242), strings.Repeat("a", 253), strings.Repeat("a", 254), "a.b", "a..b", "-a", "a-", "",
		"a/b", ".", "..", "a%b", "ä", "a\nb",
	}
	percents = []string{
		"0%", "00%", "007%", "1%", "10%", "100%", "101%", "99999999999999999999%", "99999999999999999999", "-99999999999999999999",
		"5", "+5", "-3", "abc", "", "%", "-5%", "5 %", "<5%", "ä%", " 1%", "0", "+0",
	}
)

func (g generator) create() createCase {
	raw := g.validDaemonSet()
	g.spoil(raw)
	if raw.Name == "" {
		// The apiserver makes the name before it calls validating webhooks; here the suffix is always the same.
		raw.Name = raw.GenerateName[:min(len(raw.GenerateName), 58)] + "xxxxx"
	}
	object := raw.DeepCopy()
	legacyscheme.Scheme.Default(object)
	internal := convert(object)
	ctx := genericapirequest.WithNamespace(context.Background(), internal.Namespace)
	rest.FillObjectMetaSystemFields(internal)
	causes := causes(rest.BeforeCreate(daemonset.Strategy, ctx, internal))
	return createCase{judged{"create", len(causes) == 0, causes, object}, raw}
}

func (g generator) update() updateCase {
	old := g.validDaemonSet()
	old.ResourceVersion = "7"
	old.UID = "1"
	if g.chance(40) {
		g.spoil(old)
	}
	object := old.DeepCopy()
	g.spoil(object)
	object.ResourceVersion = "7"
	if object.Namespace == "" {
		object.Namespace = "default"
	}
	legacyscheme.Scheme.Default(old)
	legacyscheme.Scheme.Default(object)
	// The webhook allows an update without a change of the spec unseen; upstream validates it.
	if object.Spec.MinReadySeconds == old.Spec.MinReadySeconds {
		object.Spec.MinReadySeconds = old.Spec.MinReadySeconds + 18
	}
	newInternal, oldInternal := convert(object), convert(old)
	ctx := genericapirequest.WithNamespace(context.Background(), newInternal.Namespace)
	causes := causes(rest.BeforeUpdate(daemonset.Strategy, ctx, newInternal, oldInternal))
	return updateCase{judged{"update", len(causes) == 0, causes, object}, old}
}

func convert(object *appsv1.DaemonSet) *apps.DaemonSet {
	internal := &apps.DaemonSet{}
	if err := legacyscheme.Scheme.Convert(object.DeepCopy(), internal, nil); err != nil {
		panic(err)
	}
	return internal
}

// causes returns all causes of the Status that a client would get.
func causes(err error) []cause {
	causes := []cause{}
	if err == nil {
		return causes
	}
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil {
		panic(err)
	}
	for _, each := range status.ErrStatus.Details.Causes {
		causes = append(causes, cause{each.Field, string(each.Type), each.Message})
	}
	if len(causes) == 0 {
		panic(err)
	}
	return causes
}

func (g generator) validDaemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	daemonSet := &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agent"},
	}
	daemonSet.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	daemonSet.Spec.Template.Labels = map[string]string{"app": "agent"}
	daemonSet.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "registry.invalid/c:1"}}
	return daemonSet
}

// spoil changes some of the fields that the webhook validates; the rest of the pod's spec stays valid.
func (g generator) spoil(d *appsv1.DaemonSet) {
	for range g.Intn(5) {
		g.spoilOnce(d)
	}
}

func (g generator) spoilOnce(d *appsv1.DaemonSet) {
	template := &d.Spec.Template
	switch g.Intn(22) {
	case 0:
		d.Name = g.one(objectNames)
		if d.Name == "" {
			d.GenerateName = g.one([]string{"a-", "A-", "-", "ä-", "a/b", "a.-", strings.Repeat("x", 253) + "-", "--"})
		}
	case 1:
		d.Namespace = g.one([]string{"default", "a.b", "A", strings.Repeat("x", 64), "kube-system"})
	case 2:
		d.Labels = g.oneLabel()
	case 3:
		d.Annotations = g.oneLabel()
		if g.chance(3) {
			d.Annotations["big"] = strings.Repeat("x", 262_100+g.Intn(60))
		}
	case 4:
		d.OwnerReferences = nil
		for range 1 + g.Intn(3) {
			d.OwnerReferences = append(d.OwnerReferences, g.owner())
		}
	case 5:
		d.Finalizers = g.some(3, []string{"orphan", "foregroundDeletion", "kubernetes", "foo", "a/b", "", "a/b/c", "ä"})
	case 6:
		entry := metav1.ManagedFieldsEntry{
			Manager:     g.one([]string{"k", strings.Repeat("x", 129), "a\x07b", "ä\u200b", ""}),
			Operation:   metav1.ManagedFieldsOperationType(g.one([]string{"Update", "Apply", "", "Foo"})),
			FieldsType:  g.one([]string{"", "FieldsV1", "X"}),
			APIVersion:  "v1",
			Subresource: g.one([]string{"", "status", strings.Repeat("s", 257)}),
		}
		d.ManagedFields = []metav1.ManagedFieldsEntry{entry}
	case 7, 8:
		d.Spec.Selector = g.selector()
	case 9, 10:
		template.Labels = g.oneLabel()
		if g.chance(50) {
			template.Labels = map[string]string{"app": g.one(labelValues)}
		}
	case 11:
		key := g.one([]string{"kubernetes.io/config.mirror", "controller.kubernetes.io/pod-deletion-cost", g.one(labelKeys)})
		template.Annotations = map[string]string{key: g.one(append(labelValues, "0", "1", "-1", "+1", "01", "99999999999"))}
	case 12:
		template.Spec.RestartPolicy = corev1.RestartPolicy(g.one([]string{"Always", "OnFailure", "Never", "Foo", "", "<a>"}))
	case 13:
		seconds := []int64{0, -1, 1, 5, 2147483647, 2147483648}[g.Intn(6)]
		template.Spec.ActiveDeadlineSeconds = &seconds
	case 14:
		d.Spec.MinReadySeconds = []int32{0, -1, 5, 2147483629}[g.Intn(4)]
	case 15:
		limit := []int32{0, -1, 5, 2147483647}[g.Intn(4)]
		d.Spec.RevisionHistoryLimit = &limit
	case 16, 17, 18, 19:
		d.Spec.UpdateStrategy = g.updateStrategy()
	case 20:
		term := corev1.PodAffinityTerm{TopologyKey: "a", LabelSelector: g.selector()}
		template.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
		// The webhook does not validate this part of the pod's spec, so it stays valid.
		if selector := term.LabelSelector; selector != nil {
			selector.MatchExpressions = nil
			selector.MatchLabels = map[string]string{"app": "agent"}
		}
	case 21:
		d.Annotations = map[string]string{"deprecated.daemonset.template.generation": g.one([]string{"7", "007", "1", "0"})}
	}
}

func (g generator) oneLabel() map[string]string {
	return map[string]string{g.one(labelKeys): g.one(labelValues)}
}

func (g generator) owner() metav1.OwnerReference {
	owner := metav1.OwnerReference{
		APIVersion: g.one([]string{"v1", "apps/v1", "", "/", "a/", "a/b/c"}),
		Kind:       g.one([]string{"Event", "X", ""}),
		Name:       g.one([]string{"n", ""}),
	}
	owner.UID = "u"
	if g.chance(30) {
		owner.UID = ""
	}
	if g.chance(60) {
		controller := g.chance(80)
		owner.Controller = &controller
	}
	if g.chance(30) {
		block := g.chance(50)
		owner.BlockOwnerDeletion = &block
	}
	return owner
}

func (g generator) selector() *metav1.LabelSelector {
	if g.chance(8) {
		return nil
	}
	selector := &metav1.LabelSelector{}
	if g.chance(60) {
		selector.MatchLabels = map[string]string{"app": "agent"}
		if g.chance(50) {
			selector.MatchLabels = g.oneLabel()
		}
	}
	for range g.Intn(3) {
		operator := g.one([]string{"In", "NotIn", "Exists", "DoesNotExist", "in", "", "Gt", "<"})
		selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: g.one(labelKeys), Operator: metav1.LabelSelectorOperator(operator), Values: g.some(2, labelValues),
		})
	}
	return selector
}

func (g generator) updateStrategy() appsv1.DaemonSetUpdateStrategy {
	strategy := appsv1.DaemonSetUpdateStrategy{}
	if g.chance(80) {
		types := []string{"RollingUpdate", "RollingUpdate", "RollingUpdate", "RollingUpdate", "OnDelete", "rollingupdate", "", "<x>"}
		strategy.Type = appsv1.DaemonSetUpdateStrategyType(g.one(types))
	}
	if g.chance(85) {
		strategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		if g.chance(75) {
			strategy.RollingUpdate.MaxUnavailable = g.intOrPercent()
		}
		if g.chance(70) {
			strategy.RollingUpdate.MaxSurge = g.intOrPercent()
		}
	}
	return strategy
}

func (g generator) intOrPercent() *intstr.IntOrString {
	value := intstr.FromString(g.one(percents))
	if g.chance(40) {
		value = intstr.FromInt32([]int32{0, 1, 2, -1, 101, 2147483647, -2147483648}[g.Intn(7)])
	}
	return &value
}
