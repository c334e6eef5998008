import MobileBilayerCore
import SwiftUI
import UIKit

// What all screens do alike.

/// What a screen tells in a window of its own.
struct Told: Identifiable {
    let id = UUID()
    let title: String
    let text: String
    /// Whether the phone's settings help.
    var settings = false

    init(title: String, text: String, settings: Bool = false) {
        self.title = title
        self.text = text
        self.settings = settings
    }

    /// An error in its own words, if it is for people.
    init(_ error: any Error) {
        let words = (error as? MobileBilayerError)?.message ?? Words.unexpected("\(error)")
        self.init(title: Words.errorTitle, text: words)
    }
}

extension View {
    /// Tells, until it was read.
    func telling(_ told: Binding<Told?>) -> some View {
        let isShown = Binding(get: { told.wrappedValue != nil }, set: { if !$0 { told.wrappedValue = nil } })
        return alert(told.wrappedValue?.title ?? "", isPresented: isShown, presenting: told.wrappedValue) { it in
            if it.settings {
                Button(Words.openSettings) {
                    if let url = URL(string: UIApplication.openSettingsURLString) { UIApplication.shared.open(url) }
                }
                Button(Words.notNow, role: .cancel) {}
            } else {
                Button(Words.ok, role: .cancel) {}
            }
        } message: {
            Text($0.text)
        }
    }
}
