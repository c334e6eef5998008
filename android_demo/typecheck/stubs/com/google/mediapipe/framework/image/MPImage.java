// Stands for com.google.mediapipe:tasks-core:0.10.35: no more of it than the app uses.
package com.google.mediapipe.framework.image;

import java.io.Closeable;

public class MPImage implements Closeable {
    @Override public void close() { throw new RuntimeException(); }
}
