import AVFoundation
import Foundation
import MobileBilayerCore
import SwiftUI
import UIKit

/// Live mode as the screen knows it: it starts and stops sessions with the screen. What runs belongs to the session.
@MainActor
final class LiveModel: ObservableObject {
    @Published var message = ""
    @Published var figures = ""
    @Published var told: Told?
    @Published private(set) var facing = Facing.front
    @Published private(set) var isLive = false
    @Published private(set) var isRecording = false
    /// What was recorded last, to be shared.
    @Published private(set) var video: URL?
    let stage = Stage()
    private(set) lazy var camera = CameraSource(
        onError: { [weak self] error in Task { @MainActor in self?.tell(error) } },
        onInterrupted: { [weak self] taken in Task { @MainActor in self?.interrupted(taken) } })

    private var session: LiveSession?
    private var recorder: Recorder?
    private var isShown = false
    private var isInFront = false
    private var starts = 0
    private var isStarting = false
    private var cameraIsOpen = false
    private var asked = false  // once a time on this screen is enough
    private var cameraIsTaken = false
    private var shownFrames = 0

    // What the system says: the screen came or went, the app did.

    func appear() {
        isShown = true
        asked = false
        follow()
    }

    func disappear() {
        isShown = false
        follow()
    }

    func phase(_ phase: ScenePhase) {
        isInFront = phase == .active
        if phase == .background { leave() } else { follow() }
    }

    /// Runs if the screen is there and the app before all others, else rests: the camera, the network and the graphics.
    private func follow() {
        if !isShown { return leave() }
        if !isInFront { return rest() }
        UIApplication.shared.isIdleTimerDisabled = true
        stage.wake()
        if let session { session.pipeline.resume() } else { start() }
        let asking = !asked
        asked = true
        Task { await openCamera(facing, asking: asking) }
    }

    /// Between two apps, under a call, under the control centre: nothing is asked of the phone, and what is there is kept.
    private func rest() {
        UIApplication.shared.isIdleTimerDisabled = false
        if isRecording { stopRecording() }
        session?.pipeline.pause()
        camera.stop()
        stage.rest()
    }

    private func leave() {
        rest()
        starts += 1
        isStarting = false
        camera.feed(nil)
        stage.show(nil)
        isLive = false
        if let session { release(session) }
        session = nil
    }

    private func start() {
        if isStarting { return }
        isStarting = true
        starts += 1
        let start = starts
        message = Words.loading
        let name = Avatars.current
        Task {
            do {
                let made = try await onWorker { [weak self] in
                    try LiveSession(try Avatars.load(name)) { error in Task { @MainActor in self?.tell(error) } }
                }
                if start == starts { begin(made) } else { release(made) }
            } catch {
                // What failed behind the screen, as the graphics do there, is begun anew.
                if start != starts { return }
                isStarting = false
                message = ""
                tell(error)
            }
        }
    }

    private func begin(_ made: LiveSession) {
        isStarting = false
        session = made
        shownFrames = 0
        if !isInFront { made.pipeline.pause() }
        camera.feed(made)
        stage.show(made)
        isLive = true
    }

    /// Closing waits for what runs: not here.
    private func release(_ made: LiveSession) { onWorkerLater { made.close() } }

    // The camera.

    private func openCamera(_ wanted: Facing, asking: Bool) async {
        switch AVCaptureDevice.authorizationStatus(for: .video) {
        case .authorized: break
        case .notDetermined where asking:
            if !(await AVCaptureDevice.requestAccess(for: .video)) { return refused() }
        default: return asking ? refused() : ()
        }
        if !isShown || !isInFront { return }
        if cameraIsOpen && wanted == facing { return camera.start() }
        do {
            facing = try await camera.open(wanted)
            cameraIsOpen = true
            stage.mirrored = facing == .front
            session?.pipeline.restart()  // another picture, perhaps another person
            if !isShown || !isInFront { camera.stop() }  // which it was told while it opened, perhaps too early
        } catch {
            tell(error)
        }
    }

    private func refused() { told = Told(title: Words.cameraNeededTitle, text: Words.cameraRefused, settings: true) }

    func otherCamera() {
        let other: Facing = facing == .front ? .back : .front
        if !CameraSource.has(other) {
            message = Words.noOtherCamera
            return
        }
        Task { await openCamera(other, asking: true) }
    }

    /// Frames are to be turned by so many degrees clockwise from now on: the upright picture is another one.
    func turned(_ degrees: Int) {
        camera.turn(degrees)
        session?.pipeline.restart()
    }

    private func interrupted(_ taken: Bool) {
        if taken == cameraIsTaken { return }
        cameraIsTaken = taken
        guard isInFront else { return }
        if taken { session?.pipeline.pause() } else { session?.pipeline.resume() }
    }

    // What is told, and recorded.

    /// Twice a second: what the session says.
    func tick() {
        if let recorder, recorder.hasFailed { stopRecording() }  // which tells why
        guard let session else { return }
        session.pacer.heat = heatNow()
        let shown = session.shown
        if cameraIsTaken {
            message = Words.cameraTaken
        } else if let most = FramePacer.mostFps(session.pacer.heat) {
            message = Words.hot(FramePacer.name(session.pacer.heat), most)
        } else if shown.frames == 0 {
            message = Words.lookHere
        } else {
            message = shown.lost ? Words.faceLost : ""
        }
        let fps = Double(shown.frames - shownFrames) * 2
        shownFrames = shown.frames
        figures = Words.figures(
            fps, session.camera.recentMs, session.landmarks.recentMs, session.network.recentMs, session.composite.recentMs,
            session.whole.recentMs)
    }

    /// Which bundle, where, and why no better one.
    func tellWhatRuns() {
        Task {
            do {
                let choice = try await onWorker { try Models.choice() }
                let manifest = choice.bundle.manifest
                let notes = choice.notes.joined(separator: "\n\n")
                told = Told(title: manifest.name, text: Words.whatRuns(manifest.backend, choice.runtime, choice.unit, notes))
            } catch {
                tell(error)
            }
        }
    }

    func startRecording() {
        guard let compositor = stage.compositor, !isRecording else { return }
        do {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent("shared")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            let made = try Recorder(url: folder.appendingPathComponent("\(Avatars.current).mp4"))
            recorder = made
            compositor.recorder = made
            video = nil
            isRecording = true
        } catch let error as MobileBilayerError {
            told = Told(error)
        } catch {
            told = Told(title: Words.errorTitle, text: Words.recordingFailed(error.localizedDescription))
        }
    }

    func stopRecording() {
        stage.compositor?.recorder = nil
        isRecording = false
        guard let made = recorder else { return }
        recorder = nil
        let writing = Unfinished("video")
        Task {
            defer { writing.end() }
            do {
                video = try await made.finish()
                if video == nil { told = Told(title: Words.errorTitle, text: Words.nothingRecorded) }
            } catch {
                told = Told(error)
            }
        }
    }

    func tell(_ error: any Error) {
        if told == nil { told = Told(error) }  // what fails may fail with every frame
    }

    /// A .avatar file that another app gave: from now on the one to drive.
    func open(_ url: URL) {
        Task {
            do {
                _ = try await onWorker { try Avatars.open(url) }
                leave()
                follow()
            } catch {
                tell(error)
            }
        }
    }
}

/// What is ended although the app leaves the screen meanwhile: iOS would stop it in the middle.
@MainActor
private final class Unfinished {
    private var task = UIBackgroundTaskIdentifier.invalid

    init(_ name: String) {
        task = UIApplication.shared.beginBackgroundTask(withName: name) { [weak self] in self?.end() }
    }

    func end() {
        if task == .invalid { return }
        UIApplication.shared.endBackgroundTask(task)
        task = .invalid
    }
}
