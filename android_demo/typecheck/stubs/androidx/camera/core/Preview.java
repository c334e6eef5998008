// Stands for androidx.camera:camera-core:1.5.3: no more of it than the app uses.
package androidx.camera.core;

public final class Preview extends UseCase {
    public void setSurfaceProvider(SurfaceProvider surfaceProvider) { throw new RuntimeException(); }

    public void setTargetRotation(int targetRotation) { throw new RuntimeException(); }

    public interface SurfaceProvider {
    }

    public static final class Builder {
        public Builder setTargetRotation(int rotation) { throw new RuntimeException(); }

        public Preview build() { throw new RuntimeException(); }
    }
}
