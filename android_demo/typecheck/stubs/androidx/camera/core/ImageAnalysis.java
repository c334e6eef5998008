// Stands for androidx.camera:camera-core:1.5.3: no more of it than the app uses.
package androidx.camera.core;

import androidx.camera.core.resolutionselector.ResolutionSelector;
import java.util.concurrent.Executor;

public final class ImageAnalysis extends UseCase {
    public static final int STRATEGY_KEEP_ONLY_LATEST = 0;
    public static final int OUTPUT_IMAGE_FORMAT_YUV_420_888 = 1;

    public void setTargetRotation(int rotation) { throw new RuntimeException(); }

    public int getTargetRotation() { throw new RuntimeException(); }

    public void setAnalyzer(Executor executor, Analyzer analyzer) { throw new RuntimeException(); }

    public void clearAnalyzer() { throw new RuntimeException(); }

    public interface Analyzer {
        void analyze(ImageProxy image);
    }

    public static final class Builder {
        public Builder setBackpressureStrategy(int strategy) { throw new RuntimeException(); }

        public Builder setOutputImageFormat(int outputImageFormat) { throw new RuntimeException(); }

        public Builder setResolutionSelector(ResolutionSelector resolutionSelector) { throw new RuntimeException(); }

        public Builder setTargetRotation(int rotation) { throw new RuntimeException(); }

        public ImageAnalysis build() { throw new RuntimeException(); }
    }
}
