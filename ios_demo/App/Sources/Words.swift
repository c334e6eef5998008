import Foundation

/// What people read. Where Android's app says the same, it says it in the same words: its strings.xml has them by these names.
enum Words {
    // Live
    static let loading = "Loading the network…"
    static let lookHere = "Look into the camera. The picture moves as you do."
    static let faceLost = "No face in the camera's picture"
    static let aiGenerated = "AI-generated"
    static let avatars = "Avatars"
    static let otherCamera = "Other camera"
    static let noOtherCamera = "This phone has no other camera."
    static let record = "Record"
    static let stopRecording = "Stop"
    static let benchmark = "Benchmark"
    static func figures(
        _ fps: Double, _ camera: Double, _ landmarks: Double, _ network: Double, _ drawing: Double, _ late: Double
    ) -> String {
        String(
            format: "%.0f fps · camera %.1f · landmarks %.1f · network %.1f · drawing %.1f ms · late %.0f ms", fps, camera, landmarks,
            network, drawing, late)
    }
    static func whatRuns(_ backend: String, _ runtime: String, _ unit: String, _ notes: String) -> String {
        "Runs by \(backend) in \(runtime), on \(unit).\n\n\(notes)"
    }
    static func hot(_ heat: String, _ fps: Int) -> String { "The phone is hot (\(heat)): at most \(fps) frames a second." }
    static let cameraNeededTitle = "The camera"
    static let cameraRefused = "The camera is not allowed. Allow it in the phone's settings for this app."
    static let cameraTaken = "Another app has the camera. Live goes on when it is free."
    static let openSettings = "Settings"
    static let notNow = "Not now"
    static func recordingFailed(_ why: String) -> String {
        "The video could not be recorded (\(why)). Free some space, and try again."
    }
    static let nothingRecorded = "Nothing was recorded: no face was seen meanwhile. Look into the camera, and record again."
    static let shareVideo = "Share the video"

    // Avatars
    static let avatarsTitle = "Avatars"
    static let fromPhoto = "Make one of a photo"
    static let importAvatar = "Open an .avatar file"
    static let showAgreed = "Show people who agreed to it."
    static let makingAvatar = "Looking at the photo…"
    static let drive = "Drive it"
    static let shareAvatar = "Share"
    static let deleteAvatar = "Delete"

    // Benchmark
    static let benchmarkTitle = "Benchmark"
    static let benchmarkWhat =
        "A portrait moves before a camera that is not there, at 30 frames a second; all else is as live. "
        + "Lay the phone on a table, off its charger, and leave it alone."
    static let benchmarkMinute = "60 seconds"
    static let benchmarkSustained = "10 minutes"
    static func benchmarkProgress(_ second: Int, _ of: Int, _ fps: Double, _ heat: String) -> String {
        String(format: "%d of %d seconds · %.0f fps · %@", second, of, fps, heat)
    }
    static func benchmarkResult(
        _ fps: Double, _ frame: Double, _ frame90: Double, _ network: Double, _ landmarks: Double, _ dropped: Int, _ notes: String
    ) -> String {
        let figures = String(
            format: "%.1f fps, whole frame %.1f ms (90 %%: %.1f), network %.1f ms, landmarks %.1f ms, %d frames dropped.", fps, frame,
            frame90, network, landmarks, dropped)
        return figures + "\n\n" + notes
    }
    static let shareResult = "Share the result"

    // Errors
    static let errorTitle = "That did not work"
    static let ok = "OK"
    static func unexpected(_ what: String) -> String {
        "Something went wrong (\(what)). Start the app again; if it stays, report it with this text."
    }
    static let photoUnreadable = "This picture can't be read. Choose a photo in JPEG, PNG, WebP or HEIC."
    static let photoWithoutFace =
        "No face was found in this photo, nor in parts of it. Choose one in which a face is sharp, upright, seen from the front "
        + "and whole from hair to chin."
    static let photoTurned = "The face in this photo is not upright. Turn the photo first."
    static func photoTooSmall(_ got: Float, _ wanted: Float) -> String {
        String(
            format: "The face in this photo is too small: %.0f pixels; at least %.0f are needed and 200 are good. "
                + "Choose a photo from nearer by.", got, wanted)
    }
    static func fileUnreadable(_ name: String) -> String { "This file can't be read (\(name)). Choose it again." }
    static func avatarTooLarge(_ megabytes: Int) -> String {
        "This file has \(megabytes) MB; an avatar has one or two. Choose a .avatar file."
    }
    static func assetMissing(_ name: String) -> String { "The app was built without \(name). Run assets.py, and build it again." }
    static func avatarMissing(_ name: String) -> String { "\(name) is not there. Choose another avatar." }
    static func otherLandmarker(_ name: String, _ got: Int, _ wanted: Int) -> String {
        "\(name) gives \(got) points; \(wanted) are needed. Run assets.py, and build the app again."
    }
    static func landmarksFailed(_ why: String) -> String { "MediaPipe could not look for a face (\(why)). Start the app again." }
    static func notLoaded(_ runtime: String, _ program: String, _ why: String, _ minimum: String) -> String {
        "\(runtime) does not load \(program) (\(why)). The program asks for \(minimum): build the app with such a runtime, "
            + "or export the bundle again."
    }
    static func notDelegated(_ bundle: String, _ backend: String, _ method: String, _ backends: String) -> String {
        "\(bundle): \(backend) runs nothing of \(method) (backends: \(backends)). Export the bundle again."
    }
    static func otherModel(_ bundle: String, _ method: String, _ what: String) -> String {
        "\(bundle): the package of \(method) is another one than the manifest tells of (\(what)). Export the bundle again."
    }
    static func noMemory(_ width: Int, _ height: Int, _ code: Int) -> String {
        "A picture of \(width)x\(height) finds no memory (code \(code)). Close other apps, and try again."
    }
    static func notWritten(_ name: String, _ why: String) -> String {
        "\(name) could not be written (\(why)). Free some space, and try again."
    }
    static func benchmarkStopped(_ seconds: Int) -> String {
        "The benchmark was stopped after \(seconds) seconds. Start it again, and leave the phone alone."
    }
    static let benchmarkWaited =
        "The benchmark waited in vain for the first frames. Keep the screen on and this app before all others."
    static func graphicsRefuse(_ why: String) -> String {
        "This phone's graphics refuse the compositor (\(why)). Metal is needed: use another phone."
    }
    static func cameraBroken(_ why: String) -> String {
        "The camera could not be opened (\(why)). Close other apps that use it, and try again."
    }
}
