"""Pipecat 1.14.0 with the standard fakes, for :mod:`tests.bench.carrier_load`; run by an interpreter that has it.

Its telephony defaults: FastAPI WebSocket transport, ``TwilioFrameSerializer``, Silero, its default turn strategies
(Smart Turn). The stand-ins for recogniser, model and voice take as long as ours (``appliance.engines.fake``). Nothing
of ours is imported.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

RATE_HZ = 8000
ASR_S, FIRST_TOKEN_S, TOKEN_S, FIRST_AUDIO_S = 0.1, 0.15, 0.015, 0.1
TEXT = "yes please"
SAMPLES_PER_CHARACTER = RATE_HZ * 60 // 1000
CHUNK = RATE_HZ // 50
VAD_STOP_S = 0.2


class Recogniser(SegmentedSTTService):
    """Hears the same in everything. It is said to be as quick as it is, so that nothing waits for it."""

    def __init__(self) -> None:
        super().__init__(trailing_silence_secs=0.0, ttfs_p99_latency=VAD_STOP_S + ASR_S)

    @property
    def wants_wav_segments(self) -> bool:
        return False

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(ASR_S)
        yield TranscriptionFrame(TEXT, "caller", time_now_iso8601(), finalized=True)


class Model(FrameProcessor):
    """Always replies the same, a word at a time."""

    def __init__(self, reply: str) -> None:
        super().__init__()
        self._reply = reply
        self._task: asyncio.Task | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame):
            await self._stop()
            self._task = self.create_task(self._answer())
            return
        if isinstance(frame, InterruptionFrame):
            await self._stop()
        await self.push_frame(frame, direction)

    async def _stop(self) -> None:
        if self._task is not None and not self._task.done():
            await self.cancel_task(self._task)
        self._task = None

    async def _answer(self) -> None:
        await self.push_frame(LLMFullResponseStartFrame())
        due = asyncio.get_running_loop().time() + FIRST_TOKEN_S
        for word in self._reply.split():
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            due += TOKEN_S
            await self.push_frame(LLMTextFrame(word + " "))
        await self.push_frame(LLMFullResponseEndFrame())

    async def cleanup(self) -> None:
        await self._stop()
        await super().cleanup()


class Voice(TTSService):
    """A 220 Hz tone of 60 ms a character, all of it after the delay."""

    def __init__(self) -> None:
        super().__init__(push_start_frame=True, push_stop_frames=True, sample_rate=RATE_HZ)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(FIRST_AUDIO_S)
        at = np.arange(len(text) * SAMPLES_PER_CHARACTER)
        pcm = (6500 * np.sin(2 * np.pi * 220 * at / RATE_HZ)).astype("<i2")
        for start in range(0, len(pcm), CHUNK):
            yield TTSAudioRawFrame(pcm[start : start + CHUNK].tobytes(), RATE_HZ, 1, context_id=context_id)


async def converse(socket: WebSocket, reply: str) -> None:
    """One call, until the caller hangs up."""
    _, data = await parse_telephony_websocket(socket)
    serializer = TwilioFrameSerializer(
        stream_sid=data["stream_id"],
        call_sid=data["call_id"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=socket,
        params=FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer),
    )
    user, assistant = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    pipeline = Pipeline([transport.input(), Recogniser(), user, Model(reply), Voice(), transport.output(), assistant])
    params = PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ)
    worker = PipelineWorker(pipeline, params=params)

    @transport.event_handler("on_client_disconnected")
    async def gone(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--reply", required=True)
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    logger.remove()
    logger.add(lambda line: print(line, end="", flush=True), level="ERROR")
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.websocket("/ws")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        await converse(socket, args.reply)

    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="error")


if __name__ == "__main__":
    main()
