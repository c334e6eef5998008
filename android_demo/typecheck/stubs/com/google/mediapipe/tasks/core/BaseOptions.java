// Stands for com.google.mediapipe:tasks-core:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.core;

import java.nio.ByteBuffer;

public abstract class BaseOptions {
    public static Builder builder() { throw new RuntimeException(); }

    public abstract static class Builder {
        public abstract Builder setModelAssetPath(String value);

        public abstract Builder setModelAssetBuffer(ByteBuffer value);

        public final BaseOptions build() { throw new RuntimeException(); }
    }
}
