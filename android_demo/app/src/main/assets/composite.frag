#version 300 es
// Joins an avatar's texture and background with one frame's layers: twin of mobile_bilayer/runtime/compositor.py and of core's
// Compositor.kt. Any size of result and texture.
//
//     head(p) = gate(p) * texture(p + flow(p)) + lf(p)
//     rgb(p)  = mask(p) * head(p) + (1 - mask(p)) * background(p)
//
// All four are filtered linearly and clamped to their edge, first row first. Layers need half floats at least: a flow of 8 bits
// makes a face tremble.

precision highp float;
precision highp sampler2D;  // or a phone may read them with 8 bits

uniform sampler2D avatar;      // RGB8, [0, 1]: the photo's head crop
uniform sampler2D background;  // RGB8, [0, 1]: what stands behind
uniform sampler2D layersA;     // RGBA16F: flow x, flow y (of [-1, 1] across the frame), gate, mask
uniform sampler2D layersB;     // RGB16F: lf, [-1, 1]

in vec2 place;
out vec4 colour;

void main() {
    vec4 a = texture(layersA, place);
    vec3 warped = 2.0 * texture(avatar, place + 0.5 * a.xy).rgb - 1.0;
    vec3 head = a.z * warped + texture(layersB, place).rgb;
    vec3 behind = 2.0 * texture(background, place).rgb - 1.0;
    vec3 rgb = mix(behind, head, a.w);
    rgb = mix(rgb, vec3(-1.0), isnan(rgb));  // what is not a number is black
    colour = vec4(0.5 + 0.5 * clamp(rgb, -1.0, 1.0), 1.0);
}
