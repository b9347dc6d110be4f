package reconciler

// outputLines is how much of what a module printed is shown with the reason why
// it failed.
const outputLines = 20

// lastOutput is what a module printed last.
func (r *Reconciler) lastOutput(module string) string {
	if r.Output == nil {
		return ""
	}
	return r.Output.Tail(module, outputLines)
}
