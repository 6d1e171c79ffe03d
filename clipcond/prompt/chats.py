"""The chats of the families whose pipelines ask a language model, in the words of their pipelines in diffusers."""

from __future__ import annotations

from clipcond.prompt.language import Chat

HUNYUAN_VIDEO = Chat(
    before=(
        "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: 1. "
        "The main content and theme of the video.2. The color, shape, size, texture, quantity, text, and spatial "
        "relationships of the objects.3. Actions, events, behaviors temporal relationships, physical movement "
        "changes of the objects.4. background environment, light, style and atmosphere.5. camera angles, "
        "movements, and transitions used in the video:<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    ),
    after="<|eot_id|>",
    crop=95,
)

KANDINSKY5 = Chat(
    before=(
        "<|im_start|>system\nYou are a prompt engineer. Describe the image by detailing the color, shape, size, "
        "texture, quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
        "<|im_start|>user\n"
    ),
    after="<|im_end|>",
    crop=40,
)

KANDINSKY5_VIDEO = Chat(
    before=(
        "<|im_start|>system\nYou are a prompt engineer. Describe the video in detail.\nDescribe how the camera "
        "moves or shakes, describe the zoom and view angle, whether it follows the objects.\nDescribe the location "
        "of the video, main characters or objects and their action.\nDescribe the dynamism of the video and "
        "presented actions.\nName the visual style of the video: whether it is a professional footage, user "
        "generated content, some kind of animation, video game or scren content.\nDescribe the visual effects, "
        "postprocessing and transitions if they are presented in the video.\nPay attention to the order of key "
        "actions shown in the scene.<|im_end|>\n<|im_start|>user\n"
    ),
    after="<|im_end|>",
    crop=128,
)

KANDINSKY6 = Chat(
    before=(
        "<|im_start|>system\nYou are a promt engineer. Describe the video in detail.\nDescribe how the camera "
        "moves or shakes, describe the zoom and view angle, whether it follows the objects.\nDescribe the location "
        "of the video, main characters or objects and their action.\nDescribe the dynamism of the video and "
        "presented actions.\nName the visual style of the video: whether it is a professional footage, user "
        "generated content, some kind of animation, video game or scren content.\nDescribe the visual effects, "
        "postprocessing and transitions if they are presented in the video.\nPay attention to the order of key "
        "actions shown in the scene.<|im_end|>\n<|im_start|>user\n"
    ),
    after="<|im_end|>",
    crop=129,
)

BARE = Chat(before="", after="", crop=0)

QWEN_IMAGE = Chat(
    before=(
        "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
        "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
    ),
    after="<|im_end|>\n<|im_start|>assistant\n",
    crop=34,
)

FLUX2 = Chat(  # the chat of Mistral's tokenizer around the words of the pipeline
    before=(
        "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on "
        "object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]"
    ),
    after="[/INST]",
    crop=0,
    special=False,
)

FLUX2_KLEIN = Chat(
    before="<|im_start|>user\n", after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", crop=0
)

Z_IMAGE = Chat(before="<|im_start|>user\n", after="<|im_end|>\n<|im_start|>assistant\n", crop=0)

LUMINA2 = Chat(
    before=(
        "You are an assistant designed to generate superior images with the superior degree of image-text alignment "
        "based on textual prompts or user prompts. <Prompt Start> "
    ),
    after="",
    crop=0,
)

SANA = Chat(
    before=(
        "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image "
        "generation. Evaluate the level of detail in the user prompt:\n"
        "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial "
        "relationships to create vivid and concrete scenes.\n"
        "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.\n"
        "Here are examples of how to transform or refine prompts:\n"
        "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping "
        "peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.\n"
        "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street "
        "lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass "
        "skyscrapers.\n"
        "Please generate only the enhanced description for the prompt below and avoid including any additional "
        "commentary or evaluations:\n"
        "User Prompt: "
    ),
    after="",
    crop=None,
)
