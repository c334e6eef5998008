// Made by ios_demo/shader.py of Android's composite.vert (703652f32ab9) and composite.frag (874f0ddc4829), with glslang 12.0.0 and spirv-cross as Debian 12 has them.
// Do not change it here.
//
// Textures and samplers 0 to 3: avatar, background, layersA, layersB. The vertex stage's buffer 0: whether to mirror, 32 bits.
// As in GLES, place (0, 0) is the first pixel of the first row of a texture, and clip space's y goes up. A Metal target's first row
// is its upper one, where GLES begins below: nothing is turned. Compile it without fast math, which takes away what asks for NaN.

#include <metal_stdlib>
#include <simd/simd.h>

using namespace metal;

struct Display
{
    uint mirrored;
};

struct composite_vert_out
{
    float2 place [[user(locn0)]];
    float4 gl_Position [[position]];
};

vertex composite_vert_out composite_vert(constant Display& display [[buffer(0)]], uint gl_VertexIndex [[vertex_id]])
{
    composite_vert_out out = {};
    float2 corner = float2((int(gl_VertexIndex) == 1) ? 2.0 : 0.0, (int(gl_VertexIndex) == 2) ? 2.0 : 0.0);
    float _38;
    if (display.mirrored != 0u)
    {
        _38 = 1.0 - corner.x;
    }
    else
    {
        _38 = corner.x;
    }
    out.place = float2(_38, 1.0 - corner.y);
    out.gl_Position = float4((corner * 2.0) - float2(1.0), 0.0, 1.0);
    return out;
}


struct composite_frag_out
{
    float4 colour [[color(0)]];
};

struct composite_frag_in
{
    float2 place [[user(locn0)]];
};

fragment composite_frag_out composite_frag(composite_frag_in in [[stage_in]], texture2d<float> avatar [[texture(0)]], texture2d<float> background [[texture(1)]], texture2d<float> layersA [[texture(2)]], texture2d<float> layersB [[texture(3)]], sampler avatarSmplr [[sampler(0)]], sampler backgroundSmplr [[sampler(1)]], sampler layersASmplr [[sampler(2)]], sampler layersBSmplr [[sampler(3)]])
{
    composite_frag_out out = {};
    float4 a = layersA.sample(layersASmplr, in.place);
    float3 warped = (avatar.sample(avatarSmplr, (in.place + (a.xy * 0.5))).xyz * 2.0) - float3(1.0);
    float3 head = (warped * a.z) + layersB.sample(layersBSmplr, in.place).xyz;
    float3 behind = (background.sample(backgroundSmplr, in.place).xyz * 2.0) - float3(1.0);
    float3 rgb = mix(behind, head, float3(a.w));
    rgb = select(rgb, float3(-1.0), isnan(rgb));
    out.colour = float4(float3(0.5) + (fast::clamp(rgb, float3(-1.0), float3(1.0)) * 0.5), 1.0);
    return out;
}

