import Foundation
import MobileBilayerCore
import UniformTypeIdentifiers

extension UTType {
    /// NAME.avatar, as Info.plist tells the system of it.
    static let avatar = UTType(exportedAs: "dev.mobilebilayer.avatar")
}

/// The avatars there are: those that came with the app, and those made or opened here. By name. `load`, `make` and `open` take long: not
/// for the main thread.
enum Avatars {
    /// The one that the app begins with.
    static let first = "astronaut"

    private static let suffix = ".avatar"
    private static let largest = 16 << 20  // bytes; ours have 1.5 million
    private static let currentKey = "current avatar"

    static func names() -> [String] {
        let bundled = named(try? assetPlace("portraits")).sorted()
        let own = named(try? folder()).sorted(by: >)
        return own + bundled.filter { !own.contains($0) }
    }

    /// Whether it was made or opened here, and may be deleted.
    static func isOwn(_ name: String) -> Bool { (try? file(name)).map { FileManager.default.fileExists(atPath: $0.path) } ?? false }

    /// The one to drive.
    static var current: String {
        UserDefaults.standard.string(forKey: currentKey).flatMap { names().contains($0) ? $0 : nil } ?? first
    }

    static func choose(_ name: String) { UserDefaults.standard.set(name, forKey: currentKey) }

    /// Where it lies: what is shared.
    static func place(_ name: String) throws -> URL {
        if isOwn(name) { return try file(name) }
        guard let url = try? assetPlace("portraits/\(name)\(suffix)") else { throw MobileBilayerError(Words.avatarMissing(name)) }
        return url
    }

    /// Throws `MobileBilayerError` if it was made for another student.
    static func load(_ name: String) throws -> Avatar {
        try Avatar.load(try read(try place(name)), where: name + suffix, bundle: try Models.choice().bundle)
    }

    /// Of a face in a photo; returns its name.
    static func make(_ photo: Data) throws -> String {
        let rgb = try readPhoto(photo)
        guard let landmarks = try FaceTracker.find(rgb) else { throw MobileBilayerError(Words.photoWithoutFace) }
        if turnOf(landmarks) != 0 { throw MobileBilayerError(Words.photoTurned) }
        let sizePx = faceSize(landmarks)
        if sizePx < smallestFacePx { throw MobileBilayerError(Words.photoTooSmall(sizePx, smallestFacePx)) }
        let network = try Models.network()
        defer { network.close() }
        let avatar = try Models.choice().bundle.avatar(rgb, landmarks: landmarks, network: network)
        return try keep(newName("photo"), try avatar.save())
    }

    /// A .avatar file, checked; returns its name. The system may ask that it is told of the access.
    static func open(_ from: URL) throws -> String {
        let scoped = from.startAccessingSecurityScopedResource()
        defer { if scoped { from.stopAccessingSecurityScopedResource() } }
        let content = try coordinated(from)
        _ = try Avatar.load(content, where: "The file", bundle: try Models.choice().bundle)
        return try keep(newName("file"), content)
    }

    static func delete(_ name: String) throws {
        do {
            try FileManager.default.removeItem(at: file(name))
        } catch {
            throw MobileBilayerError(Words.notWritten(name, error.localizedDescription), cause: error)
        }
    }

    /// Of another app's folder, or of one that a cloud has: whoever has it may have to fetch it first.
    private static func coordinated(_ from: URL) throws -> Data {
        var refused: NSError?
        var content: Result<Data, any Error>?
        NSFileCoordinator().coordinate(readingItemAt: from, options: .withoutChanges, error: &refused) { place in
            content = Result { try read(place) }
        }
        guard let content else { throw MobileBilayerError(Words.fileUnreadable(from.lastPathComponent), cause: refused) }
        return try content.get()
    }

    private static func read(_ from: URL) throws -> Data {
        let content: Data?
        do {
            let handle = try FileHandle(forReadingFrom: from)
            defer { try? handle.close() }
            content = try handle.read(upToCount: largest + 1)
        } catch {
            throw MobileBilayerError(Words.fileUnreadable(from.lastPathComponent), cause: error)
        }
        if let content, content.count > largest { throw MobileBilayerError(Words.avatarTooLarge(largest >> 20)) }
        return content ?? Data()
    }

    private static func keep(_ name: String, _ content: Data) throws -> String {
        try replaceFile(try file(name), content)
        choose(name)
        return name
    }

    private static func newName(_ kind: String) -> String { "\(kind) \(stamp("yyyy-MM-dd HH.mm.ss"))" }

    private static func named(_ folder: URL?) -> [String] {
        let all = folder.flatMap { try? FileManager.default.contentsOfDirectory(atPath: $0.path) } ?? []
        return all.filter { $0.hasSuffix(suffix) }.map { String($0.dropLast(suffix.count)) }
    }

    private static func folder() throws -> URL { try keptFolder(.applicationSupportDirectory).appendingPathComponent("avatars") }

    private static func file(_ name: String) throws -> URL { try folder().appendingPathComponent(name + suffix) }
}

/// Now, in digits that are the same everywhere.
func stamp(_ format: String) -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.dateFormat = format
    return formatter.string(from: Date())
}
