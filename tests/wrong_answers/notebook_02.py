"""Known answers to the exercises of notebook 02, "What must an endpoint do?"."""

import asyncio
import json
import time
import traceback
from contextlib import suppress
from urllib.parse import urlsplit

from bank import right, wrong
from fastapi import HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from pydantic import BaseModel, ValidationError

# ---- X2.1, the receive loop


@right("X2.1")
async def with_iter_text(websocket: WebSocket):
    """The iterator swallows the disconnect by itself."""
    await websocket.accept()
    async for question in websocket.iter_text():
        await websocket.send_text(f"Received: {question}")


@right("X2.1")
async def with_receive(websocket: WebSocket):
    """One level lower there is no exception at all."""
    await websocket.accept()
    while (message := await websocket.receive())["type"] == "websocket.receive":
        await websocket.send_text("Received: " + message["text"])


@wrong("X2.1", says="Fan 2 has sent question 2 on its connection; it should hear 'Received: What is the score?'")
async def answers_once(websocket: WebSocket):
    """The seed's five lines, with a `try` around them."""
    await websocket.accept()
    try:
        question = await websocket.receive_text()
        await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


@wrong("X2.1", says="said goodbye with 1000, and your handler ended with WebSocketDisconnect")
async def lets_the_goodbye_out(websocket: WebSocket):
    """The loop alone: every goodbye is a crash in the log."""
    await websocket.accept()
    while True:
        question = await websocket.receive_text()
        await websocket.send_text(f"Received: {question}")


@wrong("X2.1", says="hung up (FIN), and your handler ended with WebSocketDisconnect")
async def knows_polite_fans_only(websocket: WebSocket):
    """A code that was not thought of is passed on."""
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect as goodbye:
        if goodbye.code != 1000:
            raise


@wrong("X2.1", says="For 4 s nobody else had a turn: your code keeps the loop to itself")
async def swallows_everything(websocket: WebSocket):
    """After the goodbye, receive raises at once, for ever."""
    await websocket.accept()
    while True:
        try:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
        except Exception:
            pass


@wrong("X2.1", says="`await websocket.close()`. The log shows a crash where a fan went home")
async def closes_what_is_closed(websocket: WebSocket):
    """A goodbye to somebody who has said it: seen in many threads."""
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        await websocket.close()


@wrong("X2.1", says="and hears nothing. Python adds: coroutine 'WebSocket.send_text' was never awaited")
async def forgets_await(websocket: WebSocket):
    """The answer is made, and never sent."""
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_text()
            websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


@wrong("X2.1", says='Need to call "accept" first')
async def does_not_accept(websocket: WebSocket):
    """The starter's first line lost on the way."""
    try:
        while True:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


@wrong("X2.1", says="Your code raised RuntimeError: Expected ASGI message")
async def accepts_each_time(websocket: WebSocket):
    """The whole starter in the loop."""
    try:
        while True:
            await websocket.accept()
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


@wrong(
    "X2.1",
    says="Fan 2 has sent question 1 on its connection; it should hear 'Received: Who plays?', and hears nothing.",
)
async def answers_at_the_end(websocket: WebSocket):
    """Collects first, and answers when nobody is there any more."""
    await websocket.accept()
    questions = [question async for question in websocket.iter_text()]
    for question in questions:
        await websocket.send_text(f"Received: {question}")


@wrong("X2.1", says="Your code raised JSONDecodeError")
async def wants_json(websocket: WebSocket):
    """A question is a text."""
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_json()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


@wrong("X2.1", says="It is in line")
async def blocks_the_loop(websocket: WebSocket):
    """A pause for this fan, and for all others."""
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_text()
            time.sleep(10)
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


@wrong("X2.1", says="Fan 1 was silent for a second and more, and has asked now")
async def gives_up_on_the_quiet(websocket: WebSocket):
    """Whoever thinks before speaking is thrown out."""
    await websocket.accept()
    try:
        while True:
            question = await asyncio.wait_for(websocket.receive_text(), 0.5)
            await websocket.send_text(f"Received: {question}")
    except (WebSocketDisconnect, TimeoutError):
        pass


@wrong("X2.1", says="kept the loop to itself, so that nobody had a turn")
async def sleeps_before_each_answer(websocket: WebSocket):
    """Not for long, and everybody sleeps along."""
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_text()
            time.sleep(0.4)
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


# ---- X2.2, bad input


class Tip(BaseModel):
    fan: str
    goals: int


@right("X2.2")
async def by_hand(websocket: WebSocket):
    """Looks at each field; binary is closed with 1003."""
    await websocket.accept()
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if message.get("text") is None:
            await websocket.close(1003, "text only")
            continue
        try:
            tip = json.loads(message["text"])
            if not isinstance(tip["fan"], str) or not isinstance(tip["goals"], int):
                raise TypeError("a name and a number, please")
        except (ValueError, KeyError, TypeError) as error:
            await websocket.send_text(f"Error! {error!r}")
            continue
        await websocket.send_text(f"{tip['fan']} tips {tip['goals']}")


@right("X2.2")
async def lets_the_goodbye_pass_first(websocket: WebSocket):
    """One wide `except`, with the goodbye before it."""
    await websocket.accept()
    while True:
        try:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
        except WebSocketDisconnect:
            return
        except Exception as error:
            await websocket.send_text(f"error: {error}")


@wrong("X2.2", says="the connection is closed with 1006: your handler has ended it")
async def catches_around_the_loop(websocket: WebSocket):
    """No crash in the log any more, and no connection either."""
    await websocket.accept()
    try:
        while True:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
    except Exception:
        pass


@wrong("X2.2", says="and then a good tip; fan 2 should hear 'Ada tips 2', and is closed with 1008")
async def closes_on_the_first(websocket: WebSocket):
    """Tells the fan, and shows it the door."""
    await websocket.accept()
    try:
        while True:
            try:
                tip = Tip.model_validate_json(await websocket.receive_text())
            except ValidationError as error:
                await websocket.send_text(f"error: {error}")
                await websocket.close(1008)
                return
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
    except WebSocketDisconnect:
        pass


@wrong("X2.2", says="has said goodbye with 1000, and your handler ended with")
async def answers_the_goodbye(websocket: WebSocket):
    """The goodbye is an exception too, and is taken for a bad tip."""
    await websocket.accept()
    while True:
        try:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
        except Exception as error:
            await websocket.send_text(f"error: {error}")


@wrong("X2.2", says="For 4 s nobody else had a turn: your code keeps the loop to itself")
async def spins_after_the_goodbye(websocket: WebSocket):
    """The answer that cannot be sent is swallowed as well."""
    await websocket.accept()
    while True:
        try:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
        except Exception as error:
            with suppress(Exception):
                await websocket.send_text(f"error: {error}")


@wrong("X2.2", says="it is told nothing of that: the next thing it hears is 'Ada tips 2'")
async def passes_over_it(websocket: WebSocket):
    """The server lives, and the fan waits."""
    await websocket.accept()
    while True:
        try:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
        except WebSocketDisconnect:
            break
        except Exception:
            continue


@wrong("X2.2", says="lines of traceback")
async def sends_the_traceback(websocket: WebSocket):
    """What helps us helps an intruder."""
    await websocket.accept()
    while True:
        try:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
        except WebSocketDisconnect:
            break
        except Exception:
            await websocket.send_text(f"error: {traceback.format_exc()}")


@wrong("X2.2", says="where the goals are missing; the connection is closed with 1006: your handler has ended with")
async def checks_json_only(websocket: WebSocket):
    """JSON of another shape passes the check and crashes behind it."""
    await websocket.accept()
    try:
        while True:
            try:
                words = json.loads(await websocket.receive_text())
            except json.JSONDecodeError:
                await websocket.send_text("error: JSON, please")
                continue
            tip = Tip(**words)
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
    except WebSocketDisconnect:
        pass


@wrong("X2.2", says="it hears 'Ada tips None', and not a text that begins with")
async def gets_what_is_missing(websocket: WebSocket):
    """`get` hides what is not there."""
    await websocket.accept()
    async for text in websocket.iter_text():
        try:
            words = json.loads(text)
            await websocket.send_text(f"{words.get('fan')} tips {words.get('goals')}")
        except (json.JSONDecodeError, AttributeError):
            await websocket.send_text("error: a tip in JSON, please")


@wrong("X2.2", says="it hears 'Ada tips many', and not a text that begins with")
async def looks_at_the_names_only(websocket: WebSocket):
    """Both fields are there; what is in them nobody has asked."""
    await websocket.accept()
    async for text in websocket.iter_text():
        try:
            words = json.loads(text)
            await websocket.send_text(f"{words['fan']} tips {words['goals']}")
        except (json.JSONDecodeError, KeyError, TypeError):
            await websocket.send_text("error: a tip in JSON, please")


@wrong("X2.2", says="it hears '7 tips 2', and not a text that begins with")
async def makes_a_text_of_anything(websocket: WebSocket):
    """`str` turns every value into a name."""
    await websocket.accept()
    async for text in websocket.iter_text():
        try:
            words = json.loads(text)
            await websocket.send_text(f"{words['fan']!s} tips {int(words['goals'])}")
        except (ValueError, KeyError, TypeError):
            await websocket.send_text("error: a tip in JSON, please")


@wrong("X2.2", says="which is binary; the connection is closed with 1006: your handler has ended with KeyError: 'text'")
async def forgets_binary(websocket: WebSocket):
    """Everything is checked that is a text."""
    await websocket.accept()
    try:
        while True:
            try:
                tip = Tip.model_validate_json(await websocket.receive_text())
                await websocket.send_text(f"{tip.fan} tips {tip.goals}")
            except ValidationError as error:
                await websocket.send_text(f"error: {error}")
    except WebSocketDisconnect:
        pass


@wrong("X2.2", says="hears 'Sorry?', and not a text that begins with")
async def says_it_in_other_words(websocket: WebSocket):
    """A program on the other side looks for the word that was agreed on."""
    await websocket.accept()
    while True:
        try:
            tip = Tip.model_validate_json(await websocket.receive_text())
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
        except WebSocketDisconnect:
            break
        except Exception:
            await websocket.send_text("Sorry?")


# ---- X2.3, the cancellation that is swallowed


@right("X2.3")
async def with_two_tries(websocket: WebSocket, watching: set):
    """Catches what a bad message raises, and no more."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
            except KeyError:
                await websocket.send_text("error: text only")
                continue
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass
    finally:
        watching.discard(websocket)


@right("X2.3")
async def passes_it_on(websocket: WebSocket, watching: set):
    """Names the cancellation, and raises it again."""
    await websocket.accept()
    watching.add(websocket)
    while True:
        try:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
        except WebSocketDisconnect:
            break
        except asyncio.CancelledError:
            watching.discard(websocket)
            raise
        except BaseException:
            await websocket.send_text("error: text only")
    watching.discard(websocket)


@wrong("X2.3", says="was cancelled and has ended; its connection still stands in `watching`")
async def mends_one_of_two(websocket: WebSocket, watching: set):
    """The handler ends, and its last line is not reached."""
    await websocket.accept()
    watching.add(websocket)
    while True:
        try:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
        except WebSocketDisconnect:
            break
        except Exception:
            await websocket.send_text("error: text only")
    watching.discard(websocket)


@wrong("X2.3", says="it did not end. Since then it has sent 'Received: Anybody there?'")
async def names_it_and_goes_on(websocket: WebSocket, watching: set):
    """The cancellation gets a line of its own, which does nothing."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
                await websocket.send_text(f"Received: {question}")
            except WebSocketDisconnect:
                break
            except asyncio.CancelledError:
                pass
            except Exception:
                await websocket.send_text("error: text only")
    finally:
        watching.discard(websocket)


@wrong("X2.3", says="it did not end. Since then it has sent 'error: text only' and 'Received: Anybody there?'")
async def moves_the_last_line_only(websocket: WebSocket, watching: set):
    """The cleaning is safe now, and the bug is where it was."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
                await websocket.send_text(f"Received: {question}")
            except WebSocketDisconnect:
                break
            except:
                await websocket.send_text("error: text only")
    finally:
        watching.discard(websocket)


@wrong("X2.3", says="it ended as if its work were done, and kept the cancellation to itself")
async def takes_it_for_a_goodbye(websocket: WebSocket, watching: set):
    """Ends in time, and nobody learns why."""
    await websocket.accept()
    watching.add(websocket)
    while True:
        try:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
        except (WebSocketDisconnect, asyncio.CancelledError):
            break
        except Exception:
            await websocket.send_text("error: text only")
    watching.discard(websocket)


@wrong("X2.3", says="text; the connection is closed with 1006: your handler has ended with KeyError: 'text'")
async def catches_nothing_more(websocket: WebSocket, watching: set):
    """The bug is gone, and so is what it was good for."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass
    finally:
        watching.discard(websocket)


@wrong("X2.3", says="was told so, and has asked another question; the connection is closed with 1006")
async def raises_everything_again(websocket: WebSocket, watching: set):
    """What is right for a cancellation ends the connection of a bad message."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
                await websocket.send_text(f"Received: {question}")
            except WebSocketDisconnect:
                break
            except BaseException:
                await websocket.send_text("error: text only")
                raise
    finally:
        watching.discard(websocket)


@wrong("X2.3", says="Fan 1 has asked a question and is still connected, and does not stand in `watching`")
async def cleans_after_every_message(websocket: WebSocket, watching: set):
    """`finally` at the inner `try`: it runs each time round."""
    await websocket.accept()
    watching.add(websocket)
    while True:
        try:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
        except WebSocketDisconnect:
            break
        except Exception:
            await websocket.send_text("error: text only")
        finally:
            watching.discard(websocket)


@wrong("X2.3", says="3 s later it has still not ended: it waits in line")
async def waits_for_the_others(websocket: WebSocket, watching: set):
    """Wants to be the last to go, and is asked to go now."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
                await websocket.send_text(f"Received: {question}")
            except WebSocketDisconnect:
                break
            except Exception:
                await websocket.send_text("error: text only")
    finally:
        watching.discard(websocket)
        while watching:
            await asyncio.sleep(0.05)


@wrong("X2.3", says="Fan 1 has said goodbye with 1000, and your handler ended with")
async def forgets_the_goodbye(websocket: WebSocket, watching: set):
    """A goodbye is an ordinary error too, unless it is caught before."""
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
                await websocket.send_text(f"Received: {question}")
            except Exception:
                await websocket.send_text("error: text only")
    finally:
        watching.discard(websocket)


# ---- X2.4, the Origin


def staying(may_come_in):
    """Return an endpoint that admits whom `may_come_in` says, sends the score and listens."""

    async def endpoint(websocket: WebSocket, pages: list):
        if not may_come_in(websocket, pages):
            await websocket.close(1008)
            return
        await websocket.accept()
        await websocket.send_text("2:1")
        async for _ in websocket.iter_text():
            pass

    endpoint.__name__ = may_come_in.__name__
    return endpoint


@right("X2.4")
async def in_one_question(websocket: WebSocket, pages: list):
    """Who names no page is given one that may come in."""
    if websocket.headers.get("Origin", pages[0]) not in pages:
        await websocket.close()
    else:
        await websocket.accept()
        await websocket.send_text("2:1")
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass


@right("X2.4")
async def with_an_exception(websocket: WebSocket, pages: list):
    """FastAPI turns this one into the same refusal."""
    if websocket.headers.get("Origin", pages[0]) not in pages:
        raise WebSocketException(1008, "this board is for our own pages")
    await websocket.accept()
    await websocket.send_text("2:1")
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass


@wrong("X2.4", says="7 of 7 pages that do not stand in `pages` hear the score")
@staying
def looks_for_a_text_among_bytes(websocket: WebSocket, pages: list):
    """Headers of the scope are bytes, so this one is never found."""
    origin = dict(websocket.scope["headers"]).get("origin")
    return origin is None or origin in pages


@wrong("X2.4", says="hear the score: https://lab.example:8443, https://lab.example.evil.example.")
@staying
def compares_the_beginning(websocket: WebSocket, pages: list):
    """A name may go on behind the part that is known."""
    origin = websocket.headers.get("origin")
    return origin is None or any(origin.startswith(page) for page in pages)


@wrong("X2.4", says="hear the score: http://lab.example, https://lab.example:8443, http://localhost.")
@staying
def compares_the_host_only(websocket: WebSocket, pages: list):
    """Another scheme or port is another page."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).hostname in [urlsplit(page).hostname for page in pages]


@wrong("X2.4", says="hear the score: http://localhost.")
@staying
def looks_into_one_long_text(websocket: WebSocket, pages: list):
    """`in` finds a part of a text, too."""
    return websocket.headers.get("origin", "") in " ".join(pages)


@wrong("X2.4", says="hear the score: http://lab.example, https://evil-lab.example.")
@staying
def compares_the_end(websocket: WebSocket, pages: list):
    """A name may begin before the part that is known."""
    origin = websocket.headers.get("origin")
    return origin is None or origin in pages or origin.endswith("lab.example")


@wrong("X2.4", says="1 of 7 pages that do not stand in `pages` hear the score: null.")
@staying
def takes_null_for_nothing(websocket: WebSocket, pages: list):
    """A browser writes null for a page that hides where it comes from."""
    return websocket.headers.get("origin", "null") in [*pages, "null"]


@wrong("X2.4", says="The page https://lab.example stands in `pages`, and sees HTTP 403")
@staying
def looks_at_the_host_header(websocket: WebSocket, pages: list):
    """Host is whom the fan wants to reach, and not where its page is from."""
    return "https://" + websocket.headers["host"] in pages


@wrong("X2.4", says="such as an app on a phone, wants to come in, and sees HTTP 403")
@staying
def wants_a_page(websocket: WebSocket, pages: list):
    """The notebook's gate; here a missing header is no refusal."""
    return websocket.headers.get("origin") in pages


@wrong("X2.4", says="wants to come in; your handler ended with KeyError: 'origin'")
@staying
def indexes_the_headers(websocket: WebSocket, pages: list):
    """A header need not be there."""
    return websocket.headers["origin"] in pages


@wrong("X2.4", says="it should see HTTP 403, and for 3 s nothing comes")
async def says_nothing_to_strangers(websocket: WebSocket, pages: list):
    """A stranger gets a connection and is kept waiting on it."""
    await websocket.accept()
    origin = websocket.headers.get("origin")
    if origin is None or origin in pages:
        await websocket.send_text("2:1")
    async for _ in websocket.iter_text():
        pass


@wrong("X2.4", says="is let in first, and then closed with 1008")
async def accepts_first(websocket: WebSocket, pages: list):
    """A stranger gets a connection, and a close frame."""
    await websocket.accept()
    origin = websocket.headers.get("origin")
    if origin and origin not in pages:
        await websocket.close(1008)
        return
    await websocket.send_text("2:1")
    async for _ in websocket.iter_text():
        pass


@wrong("X2.4", says="it should see HTTP 403, and sees HTTP 500")
async def returns_without_a_word(websocket: WebSocket, pages: list):
    """Neither accepted nor refused; uvicorn calls that an error of ours."""
    origin = websocket.headers.get("origin")
    if origin and origin not in pages:
        return
    await websocket.accept()
    await websocket.send_text("2:1")
    async for _ in websocket.iter_text():
        pass


@wrong("X2.4", says="heard 2:1, and then your handler returned while the fan was still there")
async def does_not_listen(websocket: WebSocket, pages: list):
    """The score, and then the door."""
    if websocket.headers.get("origin", pages[0]) not in pages:
        await websocket.close(1008)
        return
    await websocket.accept()
    await websocket.send_text("2:1")


@wrong("X2.4", says='Cannot call "send" once a close message has been sent')
async def closes_and_goes_on(websocket: WebSocket, pages: list):
    """The `return` behind the refusal is missing."""
    if websocket.headers.get("origin", pages[0]) not in pages:
        await websocket.close(1008)
    await websocket.accept()
    await websocket.send_text("2:1")
    async for _ in websocket.iter_text():
        pass


@wrong("X2.4", says="sees 403, and your log holds an error for it")
async def with_a_status(websocket: WebSocket, pages: list):
    """HTTP's own exception; uvicorn sends the page 403, and complains all the same."""
    if "origin" in websocket.headers and websocket.headers["origin"].lower() not in pages:
        raise HTTPException(403)
    await websocket.accept()
    await websocket.send_text("2:1")
    async for _ in websocket.iter_text():
        pass
