import MobileBilayerCore
import SwiftUI
import UIKit

/// Measures live mode for a minute or ten, and shows and shares the result.
struct BenchmarkScreen: View {
    @StateObject private var stage = Stage()
    @State private var message = Words.benchmarkWhat
    @State private var second = 0
    @State private var seconds = 60
    @State private var measured: Measured?
    @State private var running: Task<Void, Never>?
    @State private var told: Told?
    @Environment(\.scenePhase) private var phase

    var body: some View {
        VStack {
            StageView(stage: stage)
            Text(message).multilineTextAlignment(.center)
            ProgressView(value: Double(second), total: Double(seconds))
            HStack {
                Button(Words.benchmarkMinute) { begin(60) }.disabled(running != nil)
                Button(Words.benchmarkSustained) { begin(600) }.disabled(running != nil)
                if let measured { ShareLink(Words.shareResult, item: measured.file) }
            }
        }
        .padding()
        .navigationTitle(Words.benchmarkTitle)
        .telling($told)
        .onAppear {
            if let failure = stage.failure { told = Told(failure) }
        }
        .onDisappear { stop() }
        .onChange(of: phase) { _, now in
            // Nothing is drawn any more, so nothing can be measured.
            if now == .active {
                stage.wake()
            } else {
                stop()
                UIApplication.shared.isIdleTimerDisabled = false
            }
        }
    }

    private func stop() {
        running?.cancel()
        stage.rest()
    }

    private func begin(_ wanted: Int) {
        seconds = wanted
        second = 0
        measured = nil
        stage.wake()
        UIApplication.shared.isIdleTimerDisabled = true
        let run = BenchmarkRun(seconds: wanted) { [stage] in stage.show($0) }
        running = Task {
            do {
                let got = try await run.measure { now, frames, heat in
                    second = now
                    message = Words.benchmarkProgress(now, wanted, Double(frames), heat)
                }
                let notes = try await onWorker { try Models.choice().notes }
                measured = got
                message = BenchmarkScreen.words(got, notes)
            } catch {
                message = Words.benchmarkWhat
                told = Told(error)
            }
            // Of a run that was stopped this comes late: the live screen may have asked to stay on.
            if !Task.isCancelled { UIApplication.shared.isIdleTimerDisabled = false }
            running = nil
        }
    }

    private static func words(_ got: Measured, _ notes: [String]) -> String {
        let stages = got.result.stages
        func median(_ name: String) -> Double { stages[name]?.p50 ?? 0 }
        return Words.benchmarkResult(
            got.result.fps ?? 0, median("frame"), stages["frame"]?.p90 ?? 0, median("network"), median("landmarks"), got.result.dropped,
            notes.isEmpty ? got.file.lastPathComponent : notes.joined(separator: "\n"))
    }
}
