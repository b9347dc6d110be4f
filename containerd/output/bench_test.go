package output

import "testing"

func BenchmarkLook(b *testing.B) {
	files := &Files{Dir: b.TempDir()}
	m := start(b, files, "m")
	m.print(1 << 20)
	for b.Loop() {
		m.print(100)
		files.look("m")
	}
}

func BenchmarkTail(b *testing.B) {
	files := &Files{Dir: b.TempDir()}
	m := start(b, files, "m")
	m.print(1 << 20)
	for b.Loop() {
		files.Tail("m", 10)
	}
}

func BenchmarkBegin(b *testing.B) {
	files := &Files{Dir: b.TempDir()}
	for b.Loop() {
		if _, err := files.Begin("m"); err != nil {
			b.Fatal(err)
		}
	}
}
