// Stands for com.google.mediapipe:tasks-vision:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.vision.facelandmarker;

import android.content.Context;
import com.google.mediapipe.framework.image.MPImage;
import com.google.mediapipe.tasks.core.BaseOptions;
import com.google.mediapipe.tasks.core.ErrorListener;
import com.google.mediapipe.tasks.core.OutputHandler;
import com.google.mediapipe.tasks.vision.core.RunningMode;

public final class FaceLandmarker implements AutoCloseable {
    public static FaceLandmarker createFromOptions(Context context, FaceLandmarkerOptions landmarkerOptions) { throw new RuntimeException(); }

    public FaceLandmarkerResult detect(MPImage image) { throw new RuntimeException(); }

    public void detectAsync(MPImage image, long timestampMs) { throw new RuntimeException(); }

    @Override public void close() { throw new RuntimeException(); }

    public abstract static class FaceLandmarkerOptions {
        public static Builder builder() { throw new RuntimeException(); }

        public abstract static class Builder {
            public abstract Builder setBaseOptions(BaseOptions value);

            public abstract Builder setRunningMode(RunningMode value);

            public abstract Builder setNumFaces(Integer value);

            public abstract Builder setResultListener(OutputHandler.ResultListener<FaceLandmarkerResult, MPImage> value);

            public abstract Builder setErrorListener(ErrorListener value);

            public final FaceLandmarkerOptions build() { throw new RuntimeException(); }
        }
    }
}
