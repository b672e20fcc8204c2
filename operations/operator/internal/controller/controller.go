package controller

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

// innerPort is that of the chart's pods.
const innerPort = 8080

// Setup gives mgr a loop for each kind of resource.
func Setup(mgr ctrl.Manager, base *Base, installer *Installer, reg prometheus.Registerer) error {
	keeper := &zones.Keeper{Reader: base.Reader, Writer: base.Client, Now: time.Now}
	reg.MustRegister(newGauges(base))
	for _, loop := range []interface{ setup(ctrl.Manager) error }{
		&clusters{Base: base, installer: installer, zones: keeper, innerPort: innerPort},
		&tenants{base}, &tenantLimits{base},
		&documents[*v1alpha1.RuleNamespace]{base, ruleNamespaces()},
		&documents[*v1alpha1.AlertmanagerConfig]{base, alertmanagerConfigs()},
	} {
		if err := loop.setup(mgr); err != nil {
			return fmt.Errorf("start the loop of %T: %w", loop, err)
		}
	}
	return nil
}
