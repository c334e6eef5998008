// Stands for androidx.camera:camera-core:1.5.3: no more of it than the app uses.
package androidx.camera.core.resolutionselector;

public final class ResolutionSelector {
    public static final class Builder {
        public Builder setResolutionStrategy(ResolutionStrategy resolutionStrategy) { throw new RuntimeException(); }

        public ResolutionSelector build() { throw new RuntimeException(); }
    }
}
