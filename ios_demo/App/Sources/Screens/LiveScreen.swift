import MobileBilayerCore
import SwiftUI

/// The camera's face drives an avatar.
struct LiveScreen: View {
    @StateObject private var live = LiveModel()
    @Environment(\.scenePhase) private var phase

    var body: some View {
        ZStack {
            Color.black.ignoresSafeArea()
            StageView(stage: live.stage)
            VStack {
                HStack(alignment: .top) {
                    Text(Words.aiGenerated).font(.caption).foregroundColor(.white)
                    Spacer()
                    CameraPreview(session: live.camera.session, facing: live.facing) { live.turned($0) }
                        .frame(width: 90, height: 120)
                }
                Spacer()
                Text(live.message).foregroundColor(.white).multilineTextAlignment(.center)
                Button(live.figures) { live.tellWhatRuns() }.font(.caption).foregroundColor(.gray)
                if let video = live.video { ShareLink(Words.shareVideo, item: video) }
                HStack {
                    Button(live.isRecording ? Words.stopRecording : Words.record) {
                        if live.isRecording { live.stopRecording() } else { live.startRecording() }
                    }
                    .disabled(!live.isLive)
                    Button(Words.otherCamera) { live.otherCamera() }
                    NavigationLink(Words.avatars) { AvatarsScreen() }
                    NavigationLink(Words.benchmark) { BenchmarkScreen() }
                }
            }
            .padding()
        }
        .telling($live.told)
        .onAppear {
            live.phase(phase)
            live.appear()
            if let failure = live.stage.failure { live.tell(failure) }
        }
        .onDisappear { live.disappear() }
        .onChange(of: phase) { _, now in live.phase(now) }
        .onOpenURL { live.open($0) }
        .task {
            while !Task.isCancelled {
                live.tick()
                try? await Task.sleep(nanoseconds: 500_000_000)
            }
        }
    }
}
