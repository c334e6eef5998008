#version 300 es
// One triangle that covers the screen; nothing is to be bound. Draw three vertices.

uniform bool mirrored;  // as a mirror shows it: for the display of a front camera, never for what is recorded

out highp vec2 place;  // of the frame, [0, 1]: x to the right, y down, as pictures are stored

void main() {
    vec2 corner = vec2(gl_VertexID == 1 ? 2.0 : 0.0, gl_VertexID == 2 ? 2.0 : 0.0);
    place = vec2(mirrored ? 1.0 - corner.x : corner.x, 1.0 - corner.y);
    gl_Position = vec4(2.0 * corner - 1.0, 0.0, 1.0);
}
