import PhotosUI
import SwiftUI
import UniformTypeIdentifiers

/// Choose who is driven: an avatar that is there, one of a photo, or an .avatar file; share and delete them.
struct AvatarsScreen: View {
    @Environment(\.dismiss) private var dismiss
    @State private var names: [String] = []
    @State private var photo: PhotosPickerItem?
    @State private var opens = false
    @State private var busy = false
    @State private var told: Told?

    var body: some View {
        List {
            Section {
                // The system's own pickers: no permission to read all photos or files is needed.
                PhotosPicker(Words.fromPhoto, selection: $photo, matching: .images)
                Button(Words.importAvatar) { opens = true }
                Text(Words.showAgreed).font(.caption).foregroundColor(.gray)
                if busy { ProgressView(Words.makingAvatar) }
            }
            ForEach(names, id: \.self) { name in
                Menu(name) {
                    Button(Words.drive) {
                        Avatars.choose(name)
                        dismiss()
                    }
                    if let place = try? Avatars.place(name) { ShareLink(Words.shareAvatar, item: place) }
                    if Avatars.isOwn(name) { Button(Words.deleteAvatar, role: .destructive) { delete(name) } }
                }
            }
        }
        .navigationTitle(Words.avatarsTitle)
        .disabled(busy)
        .telling($told)
        .onAppear { names = Avatars.names() }
        .onChange(of: photo) { _, picked in
            guard let picked else { return }
            photo = nil
            work {
                guard let content = try? await picked.loadTransferable(type: Data.self) else {
                    return told = Told(title: Words.errorTitle, text: Words.photoUnreadable)
                }
                _ = try await onWorker { try Avatars.make(content) }
                dismiss()
            }
        }
        .fileImporter(isPresented: $opens, allowedContentTypes: [.avatar]) { chosen in
            work {
                let url = try chosen.get()
                _ = try await onWorker { try Avatars.open(url) }
                dismiss()
            }
        }
    }

    private func delete(_ name: String) {
        do {
            try Avatars.delete(name)
        } catch {
            told = Told(error)
        }
        names = Avatars.names()
    }

    /// Takes long; errors are told.
    private func work(_ act: @escaping @MainActor () async throws -> Void) {
        busy = true
        Task {
            do {
                try await act()
            } catch {
                told = Told(error)
            }
            busy = false
        }
    }
}
